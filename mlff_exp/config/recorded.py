"""Select the recorded part of a configuration: only the keys that the task and the model use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlff_exp.config.words import is_native

NATIVE = "native"  # engine and precision of a model that runs as it is, such as an ASE calculator

# Words that a task takes no notice of, and what to say instead.
UNUSED: dict[str, dict[str, str]] = {
    "inference": {},
    "accuracy": {"system": "what it evaluates is task.dataset"},
    "nve": {"batch_size": "what moves side by side is task.replicas of each of task.systems"},
    "distill": {
        "model": "what it trains is task.n_features and task.n_interactions",
        "system": "what it samples is task.molecules",
        "engine": "it trains by an engine of its own",
        "precision": "it trains in FP32",
        "batch_size": "what it trains on at once is task.atoms_per_step",
    },
}


def what_runs(values: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a configuration without those that are not used.

    A model that runs as it is has the engine and the precision ``native``.
    """
    task = values["task"]
    unused = set(UNUSED.get(task["name"], {}))
    if task.get("systems"):
        unused.add("system")
    kept = {key: value for key, value in values.items() if key not in unused}
    if is_native(kept.get("model", {}).get("name", "")):
        kept |= {"engine": {"name": NATIVE}, "precision": {"name": NATIVE}}
    return kept
