"""From metrics and limits to GO, NO-GO or UNDECIDED."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mlff_exp.config import Gate, Limit
from mlff_exp.results.ensemble import is_within, starts_that_decide
from mlff_exp.results.estimate import Estimate
from mlff_exp.results.metrics import METRICS, find_metric
from mlff_exp.results.verdict import Criterion, Decision, Verdict

ENOUGH_PS = 10.0  # below, a drift can't be told from the slow breathing of the energy
DECIDING_PS = 100.0
SEVERAL = 8  # starts to take where one says nothing of the spread


def qualified(verdict: Verdict, duration_ps: float) -> Verdict:
    """The verdict, a GO over a trajectory that is too short for one with that among its reasons.

    Args:
        verdict: on the trajectory.
        duration_ps: of it.
    """
    if verdict.decision != "GO" or duration_ps >= ENOUGH_PS:
        return verdict
    short = f"GO over {duration_ps:g} ps: too short to decide; {DECIDING_PS:g} ps decide"
    return replace(verdict, reasons=(*verdict.reasons, short))


def judge_gate(
    metrics: Mapping[str, float],
    gate: Gate,
    faults: Sequence[str] = (),
    n_starts: int = 1,
    inapplicable: Mapping[str, str] | None = None,
) -> Verdict:
    """Hold every limit of the gate against the metrics.

    A metric that is a statistic over the starts is judged by its interval: it has held if all of the interval lies
    within the limits, missed if all of it lies outside, and is undecided otherwise. Every other metric is judged by its
    value. A criterion whose metric was not measured, or is NaN or infinite, has neither held nor missed, and is NO-GO
    all the same: a gate can't be passed by measuring less. The exception is a metric that has no meaning for what was
    run, which the caller names with the reason: it is shown and not judged.

    Args:
        metrics: by name.
        gate: its limits.
        faults: what went wrong besides, such as an explosion; any of them is NO-GO, whatever the limits.
        n_starts: how many starts the metrics come from.
        inapplicable: metrics that have no meaning for this system or precision, each with the reason.
    """
    excused = inapplicable or {}
    criteria = tuple(
        Criterion(metric, None, limit.min, limit.max, None, inapplicable=excused[metric])
        if metric in excused
        else _judge_criterion(metric, limit, metrics, n_starts)
        for metric, limit in gate.criteria.items()
    )
    missed = [
        criterion
        for criterion in criteria
        if not criterion.held and not criterion.undecided and not criterion.inapplicable
    ]
    undecided = [criterion for criterion in criteria if criterion.undecided]
    decision: Decision = "NO-GO" if faults or missed else "UNDECIDED" if undecided else "GO"
    told = missed if decision == "NO-GO" else undecided
    reasons = (*faults, *map(_reason, told))
    return Verdict(decision, gate.name, criteria, reasons, n_starts=n_starts, faults=tuple(faults))


def _judge_criterion(metric: str, limit: Limit, metrics: Mapping[str, float], n_starts: int) -> Criterion:
    value, known = metrics.get(metric), find_metric(metric)
    statistic = known.statistic if known is not None else ""
    if value is None or not math.isfinite(value):
        alone = statistic == "spread" and n_starts == 1
        return Criterion(metric, None, limit.min, limit.max, None, undecided=alone, starts=SEVERAL if alone else None)
    if statistic == "":
        held = (limit.min is None or value >= limit.min) and (limit.max is None or value <= limit.max)
        return Criterion(metric, value, limit.min, limit.max, held)
    estimate = Estimate.from_metrics(metric, metrics)
    within, starts = is_within(estimate, limit.min, limit.max), None
    if within is None:
        several = n_starts > 1
        starts = starts_that_decide(statistic, estimate, n_starts, limit.min, limit.max) if several else SEVERAL
    return Criterion(metric, value, limit.min, limit.max, within, estimate.low, estimate.high, within is None, starts)


def _reason(criterion: Criterion) -> str:
    """Why a criterion did not hold, or what it would take to decide it."""
    shown = "not measured" if criterion.value is None else f"{criterion.value:.4g}"
    if criterion.low is not None and criterion.high is not None:
        shown += f" [{criterion.low:.4g}, {criterion.high:.4g}]"
    said = f"{criterion.metric} is {shown}, allowed is {format_limits(criterion.min, criterion.max)}"
    known = find_metric(criterion.metric)
    if criterion.held is False and known is not None and known.fault:
        said = f"{known.fault}: {said}"
    if not criterion.undecided:
        return said
    if criterion.starts is None:
        return f"{said}: the value is at the limit, and more starts will hardly decide"
    return f"{said}: about {criterion.starts:,} starts would decide (task.replicas={criterion.starts})"


def combine_verdicts(verdicts: Mapping[str, Verdict]) -> Verdict:
    """One verdict on several systems, by name: GO if it is for each of them, NO-GO if it is for any."""
    criteria = tuple(
        replace(criterion, metric=f"{criterion.metric}/{name}")
        for name, verdict in verdicts.items()
        for criterion in verdict.criteria
    )
    decisions = {verdict.decision for verdict in verdicts.values()}
    decision: Decision = next((each for each in ("NO-GO", "UNDECIDED") if each in decisions), "GO")
    if decision == "GO":  # how short it was
        reasons = tuple(dict.fromkeys(reason for verdict in verdicts.values() for reason in verdict.reasons))
    else:
        reasons = tuple(
            f"{name}: {reason}"
            for name, verdict in verdicts.items()
            if verdict.decision == decision
            for reason in verdict.reasons
        )
    first = next(iter(verdicts.values()))
    faults = tuple(f"{name}: {fault}" for name, verdict in verdicts.items() for fault in verdict.faults)
    return Verdict(decision, first.gate, criteria, reasons, dict(verdicts), first.n_starts, faults)


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
    if any(
        criterion.held is None and not criterion.undecided and not criterion.inapplicable
        for criterion in verdict.criteria
    ):
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
