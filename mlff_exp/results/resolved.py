"""Resolve the configuration of a run into the plain values that are recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mlff_exp.config import default_values, requested_values, what_runs
from mlff_exp.results.naming import find_unusual_keys, values_of


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
    keys = values["sweep"].pop("varied")
    if keys is None:
        keys = find_unusual_keys(values, default_values(values, OmegaConf.get_type(composed.model) or dict))
    # From the requested values, so that jobs that differ only in unused keys have different labels as well.
    values["sweep"]["varied"] = values_of(given, keys)
    return values


def save_resolved(composed: DictConfig, directory: Path) -> dict[str, Any]:
    """Return the configuration as plain values, and write it to ``config.yaml`` in the run's directory."""
    values = resolve_config(composed)
    OmegaConf.save(OmegaConf.create(values), directory / "config.yaml")
    return values
