"""Resolve the configuration of a run into the plain values that are recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mlff_exp.common import mask_secrets
from mlff_exp.config import NATIVE, USUAL_GATE, Config, FileSystem, defaults, recorded_values
from mlff_exp.models import MODELS
from mlff_exp.results import find_unusual_keys, values_of
from mlff_exp.tasks.registry import TASKS


def what_runs(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values of a configuration without those that are not used.

    A model that runs as it is has the engine and the precision ``native``.
    """
    task = values["task"]
    unused = set(TASKS[task["name"]].ignores)
    if task.get("systems"):
        unused.add("system")
    kept = {key: value for key, value in values.items() if key not in unused}
    if "model" in kept and MODELS[kept["model"]["name"]].native:
        kept |= {"engine": {"name": NATIVE}, "precision": {"name": NATIVE}}
    return kept


def requested_values(composed: DictConfig) -> dict[str, Any]:
    """Return the configuration of one run as plain values, with what is not used as well."""
    given: dict[str, Any] = mask_secrets(recorded_values(composed))
    return given | what_runs(given)


def default_values(values: Mapping[str, Any], model: type, system: type = FileSystem) -> dict[str, Any]:
    """Return the defaults of a run as plain values.

    Args:
        values: the plain values of the run; its task decides on the defaults.
        model: the dataclass of the options of its model.
        system: the dataclass of the options of its system.
    """
    groups = {"task": TASKS[values["task"]["name"]].options, "model": model, "system": system}
    chosen: dict[str, Any] = {group: defaults(kind) for group, kind in groups.items()}
    return defaults(Config) | chosen | {"gate": {"name": USUAL_GATE}}


def resolve_config(composed: DictConfig) -> dict[str, Any]:
    """Return the configuration of one run as plain values: the settings that it uses, and how it differs from others.

    A value from an environment variable is recorded as ``${oc.env:NAME}``, unless it is a number or a word of the
    configuration.
    """
    given = requested_values(composed)
    values = what_runs(given)
    # The stages of an experiment belong to the sweep, not to each of its runs.
    for key in ("stages", "parameters", "resume", "budget_s", "compile_ahead", "targets"):
        values["sweep"].pop(key)
    keys, task = values["sweep"].pop("varied"), TASKS[values["task"]["name"]]
    if task.judged or task.trains:  # a verdict on other runs says nothing of it
        values["sweep"].pop("gate_decision")
    if keys is None:
        used = values if task.judged else {key: value for key, value in values.items() if key != "gate"}
        model, system = (OmegaConf.get_type(composed[group]) or dict for group in ("model", "system"))
        keys = find_unusual_keys(used, default_values(values, model, system))
    # From the requested values, so that jobs that differ only in unused keys have different labels as well.
    values["sweep"]["varied"] = values_of(given, keys)
    return values


def save_resolved(composed: DictConfig, directory: Path) -> dict[str, Any]:
    """Return the configuration as plain values, and write it to ``config.yaml`` in the run's directory."""
    values = resolve_config(composed)
    OmegaConf.save(OmegaConf.create(values), directory / "config.yaml")
    return values
