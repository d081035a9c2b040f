"""A list, a mapping, a single value or nothing in a file where its key takes another kind."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from mlff_exp.cli.file_shapes import refuse_misshapen
from mlff_exp.config.errors import ConfigError
from tests.helpers.here import CONF

# By kind: keys of the configuration that take it.
KEYS = {
    "single": ["seed", "timeout_s", "cold_compile", "device", "sweep.name", "sweep.resume", "tracking.directory"],
    "list": ["trust", "sweep.stages", "sweep.targets", "hydra.searchpath", "hydra.job.env_copy"],
    "mapping": [
        "task",
        "system",
        "precision",
        "gate",
        "gate.criteria",
        "sweep",
        "hydra",
        "hydra.job",
        "hydra.callbacks",
    ],
}
VALUES: dict[str, list[Any]] = {"single": [5, "x", ""], "list": [[]], "mapping": [{}]}


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def said(key: str, value: Any) -> str:
    """What is said against a file with this value; nothing if it passes."""
    try:
        refuse_misshapen(OmegaConf.create(nested(key, value)), "experiment/mine")
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, keys in KEYS.items() for key in keys])
def test_each_key_takes_its_kind_and_no_other(kind: str, key: str) -> None:
    for other, values in VALUES.items():
        for value in values:
            if other == kind:
                assert said(key, value) == ""
            else:
                assert said(key, value).startswith(f"experiment/mine: {key}={value!r} must be a {kind}")
    assert said(key, "${seed}") == said(key, "???") == ""


@pytest.mark.parametrize(
    "key", ["seed", "sweep.name", "sweep", "trust", "hydra", "hydra.job", "hydra.callbacks", "gate"]
)
def test_nothing_is_no_value(key: str) -> None:
    assert said(key, None) == f"experiment/mine: {key} can't be null: leave it out, or give it a value"


def test_what_may_be_nothing_or_anything_passes() -> None:
    for key in ("sweep.budget_s", "sweep.resume", "hydra.mode", "hydra.output_subdir", "hydra.verbose", "unknown"):
        assert said(key, None) == ""
    assert said("sweep.parameters", {"a": None, "b": [1], "c": {"d": 1}}) == ""


def test_items_are_held_against_their_type() -> None:
    assert "sweep.stages.0=5 must be a mapping with the keys name, overrides, gate" in said("sweep.stages", [5])
    assert "gate.criteria.drift=3 must be a mapping with the keys min, max" in said("gate.criteria", {"drift": 3})


def test_our_own_files_pass() -> None:
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        refuse_misshapen(OmegaConf.create(yaml.safe_load(path.read_text())), path.stem)
