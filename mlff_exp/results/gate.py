"""From metrics and limits to GO or NO-GO."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mlff_exp.config import Gate
from mlff_exp.results.metrics import METRICS, find_metric
from mlff_exp.results.verdict import Criterion, Verdict

ENOUGH_PS = 10.0  # below, a drift can't be told from the slow breathing of the energy
DECIDING_PS = 100.0


def qualified(verdict: Verdict, duration_ps: float) -> Verdict:
    """The verdict, a GO over a trajectory that is too short for one with that among its reasons.

    Args:
        verdict: on the trajectory.
        duration_ps: of it.
    """
    if verdict.decision == "NO-GO" or duration_ps >= ENOUGH_PS:
        return verdict
    short = f"GO over {duration_ps:g} ps: too short to decide; {DECIDING_PS:g} ps decide"
    return replace(verdict, reasons=(*verdict.reasons, short))


def judge_gate(metrics: Mapping[str, float], gate: Gate, faults: Sequence[str] = ()) -> Verdict:
    """Hold every limit of the gate against the metrics.

    A criterion whose metric was not measured, or is NaN or infinite, has neither held nor missed, and is NO-GO all the
    same: a gate can't be passed by measuring less.

    Args:
        metrics: by name; the worst replica's where there are several.
        gate: its limits.
        faults: what went wrong besides, such as an explosion; any of them is NO-GO, whatever the limits.
    """
    criteria = []
    reasons = list(faults)
    for metric, limit in gate.criteria.items():
        value = metrics.get(metric)
        if value is None or not math.isfinite(value):
            value, held, shown = None, None, "not measured"
        else:
            held = (limit.min is None or value >= limit.min) and (limit.max is None or value <= limit.max)
            shown = f"{value:.4g}"
        criteria.append(Criterion(metric, value, limit.min, limit.max, held))
        if not held:
            reasons.append(f"{metric} is {shown}, allowed is {format_limits(limit.min, limit.max)}")
    return Verdict("NO-GO" if reasons else "GO", gate.name, tuple(criteria), tuple(reasons))


def combine_verdicts(verdicts: Mapping[str, Verdict]) -> Verdict:
    """One verdict on several systems, by name: GO if it is for each of them."""
    criteria = tuple(
        replace(criterion, metric=f"{criterion.metric}/{name}")
        for name, verdict in verdicts.items()
        for criterion in verdict.criteria
    )
    missed = [
        f"{name}: {reason}"
        for name, verdict in verdicts.items()
        if verdict.decision == "NO-GO"
        for reason in verdict.reasons
    ]
    shared = dict.fromkeys(reason for verdict in verdicts.values() for reason in verdict.reasons)  # how short it was
    gate = next(iter(verdicts.values())).gate
    return Verdict("NO-GO" if missed else "GO", gate, criteria, tuple(missed or shared), dict(verdicts))


NOT_RELAXED = (
    "Look at the structure that was given and at the force field: without a minimum there is nothing to measure the "
    "energy against."
)
NO_START = (
    "There is no trajectory. Lower task.temperature_k or task.timestep_fs: if the start holds then, the training data "
    "does not reach where the atoms went."
)
BLEW_UP = "Look at the frames before the end: which atoms went where the training data does not reach?"
MEASURED_NOTHING = (
    "What was not measured can't be judged: a longer trajectory measures more. A system without bonds has no "
    "max_bond_change_ang: take the criterion out of the gate."
)


def advice_for(verdict: Verdict, *, frames: bool) -> list[str]:
    """Advice on a NO-GO.

    Args:
        verdict: on one system.
        frames: whether there is a trajectory to look at.
    """
    missed = [find_metric(criterion.metric) for criterion in verdict.criteria if criterion.held is False]
    found = [text for text in dict.fromkeys(metric.advice for metric in METRICS if metric in missed) if text]
    if any("relax" in reason for reason in verdict.reasons):
        found.append(NOT_RELAXED)
    if not frames:
        return [*found, NO_START]
    if any(criterion.held is None for criterion in verdict.criteria):
        found.append(MEASURED_NOTHING)
    return found or [BLEW_UP]


def format_limits(low: float | None, high: float | None) -> str:
    """An interval in words: ``-1 … 1``, ``≤ 0.5``, ``≥ 3``."""
    if low is None and high is None:
        return "anything"
    if low is None:
        return f"≤ {high:g}"
    if high is None:
        return f"≥ {low:g}"
    return f"{low:g} … {high:g}"
