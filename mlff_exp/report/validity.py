"""Judge whether a speedup is valid: fast, accurate and stable, by the runs of the same report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlff_exp.engines import REFERENCE_ENGINE
from mlff_exp.results import ENOUGH_PS, NON_CONSERVATIVE, Decision, RunResult

Results = Sequence[RunResult]
# The errors that an optimisation may cause, against eager FP64 of the same weights.
LARGEST_ERRORS = {
    "energy_mae_vs_fp64_mev_per_atom": 0.5,
    "force_relative_rmse_vs_fp64_percent": 1.0,
    "force_worst_atom_vs_fp64_mev_per_ang": 20.0,
}
# The stress has to hold one of them: where it is small, no error can be small relative to it.
LARGEST_STRESS_ERRORS = {
    "stress_rmse_vs_fp64_gpa": 0.01,
    "stress_relative_rmse_vs_fp64_percent": 1.0,
}
VALID, UNSAFE = "yes", f"no: {NON_CONSERVATIVE}"
LATENCY = "latency_median_ms"


STABLE: dict[Decision | None, str] = {
    None: "stability not known",
    "UNDECIDED": "stability not decided",
    "NO-GO": "no: unstable",
    "GO": VALID,
}


def validity(result: RunResult, results: Results) -> str:
    """Judge whether a run's speedup is valid: fast, accurate and, by the NVE runs among the results, stable.

    A run whose forces are not the gradient of the energy is not valid, whether it has a speedup or not.
    """
    metrics = result.metrics
    timed = LATENCY in metrics
    if timed and any(each.non_conservative for each in (result, *_same(result, results))):
        return UNSAFE
    if "speedup_vs_baseline" not in metrics or (
        choice(result, "engine") == REFERENCE_ENGINE and choice(result, "precision") == "fp32"
    ):
        return ""
    if not result.trusted:
        return "not trusted"
    if metrics["speedup_vs_baseline_ci_low"] <= 1:
        return "no: not faster"
    if "energy_mae_vs_fp64_mev_per_atom" not in metrics:
        return "accuracy not known"
    # Earlier versions did not measure the worst atom; forces that are all zero have no relative error.
    if any(metrics.get(metric, 0.0) > largest for metric, largest in LARGEST_ERRORS.items()):
        return "no: inaccurate"
    # Systems that are not periodic have no stress; a stress of zero has no relative error.
    errors = {metric: largest for metric, largest in LARGEST_STRESS_ERRORS.items() if metric in metrics}
    if errors and all(metrics[metric] > largest for metric, largest in errors.items()):
        return "no: inaccurate stress"
    return STABLE[stability(result, results)]


def stability(result: RunResult, results: Results) -> Decision | None:
    """Return the verdict of NVE runs on a run's force field and system; None without any.

    A NO-GO counts most. A GO counts more than an UNDECIDED, which had too few starts.

    A GO over less than `ENOUGH_PS`, or under conditions that are easier than usual, says nothing of stability.
    """
    (system,) = systems_of(result)
    decisions = {_decision(other, system) for other in _same(result, results)}
    strongest_first: tuple[Decision, ...] = ("NO-GO", "GO", "UNDECIDED")
    return next((decision for decision in strongest_first if decision in decisions), None)


def _same(result: RunResult, results: Results) -> list[RunResult]:
    """Return the results of the same force field at the same engine and precision."""
    return [other for other in results if force_field(other) == force_field(result)]


def _decision(result: RunResult, system: Mapping[str, Any]) -> Decision | None:
    """Return a run's verdict on one system; None if the run had another one, or if its GO is worth little."""
    verdict, systems = result.verdict, systems_of(result)
    if verdict is None or system not in systems:
        return None
    own = verdict.on(system["name"]) if len(systems) > 1 else verdict
    long_enough = result.config["task"].get("duration_ps", 0.0) >= ENOUGH_PS
    worth = own.criteria and long_enough and not result.easier_than_usual
    return own.decision if worth or own.decision == "NO-GO" else None


def force_field(result: RunResult) -> tuple[Any, ...]:
    """Return what computes the forces: model with weights, engine with mode, and precision."""
    model, engine = result.config["model"], result.config["engine"]
    return (
        json.dumps(model, sort_keys=True),
        result.tags.get("checkpoint.sha256"),
        engine["name"],
        engine.get("mode"),
        choice(result, "precision"),
    )


def least_accurate(metric: str, results: Results) -> RunResult | None:
    """Return the run with the largest error, on timed batches and on the validation set."""
    found = [
        result
        for result in results
        if metric in result.metrics and result.config["task"].get("dataset", "validation") == "validation"
    ]
    return max(found, key=lambda result: result.metrics[metric], default=None)


def systems_of(result: RunResult) -> list[Mapping[str, Any]]:
    """Return the systems of a run as in the configuration; empty for a run on a labelled set."""
    side_by_side = result.config["task"].get("systems")
    if side_by_side:
        return [{"name": name} for name in side_by_side]
    return [result.config["system"]] if "system" in result.config else []


def choice(result: RunResult, group: str) -> str:
    """Return the name of the option of a group, such as the engine."""
    return str(result.config[group]["name"])
