"""The configuration of a run as plain values, as it is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mlff_exp.config import default_values, requested_values, what_runs
from mlff_exp.results.naming import find_unusual_keys, values_of


def resolve_config(composed: DictConfig) -> dict[str, Any]:
    """The configuration of one run as plain values: what ran, and what tells the run apart from others.

    What an environment variable gave stands there as its interpolation, ``${oc.env:NAME}``, unless it is a number or
    one of the words that a configuration can be made of.
    """
    given = requested_values(composed)
    values = what_runs(given)
    # The plan of the whole experiment belongs to the sweep, not to each of its runs.
    for key in ("stages", "parameters", "resume", "budget_s", "compile_ahead", "targets"):
        values["sweep"].pop(key)
    keys = values["sweep"].pop("varied")
    if keys is None:
        keys = find_unusual_keys(values, default_values(values, OmegaConf.get_type(composed.model) or dict))
    # Of what was asked for: jobs that differ only in what they take no notice of are told apart as well.
    values["sweep"]["varied"] = values_of(given, keys)
    return values


def save_resolved(composed: DictConfig, directory: Path) -> dict[str, Any]:
    """The configuration as plain values, also written to ``config.yaml`` in the run's directory."""
    values = resolve_config(composed)
    OmegaConf.save(OmegaConf.create(values), directory / "config.yaml")
    return values
