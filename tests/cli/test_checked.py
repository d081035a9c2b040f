"""What was composed to check the command line is what Hydra would compose."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hydra.types import RunMode
from omegaconf import OmegaConf

from mlff_exp.cli import app, guard
from mlff_exp.cli.schemas import register_schemas
from tests.helpers.here import CONF

WORDS = ("seed=3", "device=cpu", "tracking=offline")


@pytest.mark.parametrize(
    "words",
    [
        WORDS,
        (*WORDS, "hydra.mode=RUN"),
        (*WORDS, "hydra.run.dir=${hydra.job.name}"),
        ("-cd", "mine", *WORDS),
        ("-m", "seed=3,4", "tracking=offline"),
        ("hydra.mode=MULTIRUN", "seed=3,4", "tracking=offline"),
        ("experiment=quickstart", "device=cpu", "tracking=offline"),
    ],
    ids=" ".join,
)
def test_hydra_gets_what_it_would_compose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    (tmp_path / "mine").mkdir()
    composed: list[tuple[Any, ...]] = []
    got: list[Any] = []
    compose = guard.GuardedLoader.load_configuration

    def composing(loader: guard.GuardedLoader, *how: Any) -> Any:
        composed.append(how)
        return compose(loader, *how)

    def ran(hydra: Any, config_name: str, task_function: object, overrides: list[str]) -> None:
        mode = RunMode.MULTIRUN if ran_mode else RunMode.RUN
        got.append(hydra.compose_config(config_name, overrides, mode))
        own = compose(hydra.config_loader, config_name, overrides, mode, True, True)
        assert OmegaConf.to_container(got[0], resolve=False) == OmegaConf.to_container(own, resolve=False)
        assert got[0]._metadata.flags == own._metadata.flags

    ran_mode = "-m" in words or "hydra.mode=MULTIRUN" in words or "experiment=quickstart" in words
    monkeypatch.setattr(guard.GuardedLoader, "load_configuration", composing)
    monkeypatch.setattr(Hydra, "multirun" if ran_mode else "run", ran)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mlff-exp", *words])
    app.main()
    assert len(got) == 1
    assert len(composed) == 2  # once for the mode, once for the job or sweep


def test_schemas_are_registered_once_and_again_if_they_are_lost() -> None:
    register_schemas()
    store = ConfigStore.instance()
    before = store.repo["system"]["water.yaml"]
    register_schemas()
    assert store.repo["system"]["water.yaml"] is before
    del store.repo["system"]["water.yaml"]
    register_schemas()
    assert store.repo["system"]["water.yaml"].node == before.node


def test_a_composition_shares_the_sources_but_not_their_list() -> None:
    """Each composition copies the repository; with the sources it would copy all registered schemas."""
    repository = guard.GuardedLoader(create_config_search_path(str(CONF))).repository
    copied = copy.deepcopy(repository)
    assert copied.sources == repository.sources
    assert all(one is other for one, other in zip(copied.sources, repository.sources, strict=True))
    copied.sources.pop()
    assert len(copied.sources) == len(repository.sources) - 1
