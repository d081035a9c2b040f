"""Judge metrics by the limits of a gate: GO, NO-GO or UNDECIDED."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mlff_exp.config import Gate, Limit
from mlff_exp.results.ensemble import is_within, starts_that_decide
from mlff_exp.results.estimate import Estimate
from mlff_exp.results.metrics import METRICS, find_metric
from mlff_exp.results.verdict import Criterion, Decision, Fault, FaultKind, Verdict

ENOUGH_PS = 10.0  # in a shorter trajectory a drift can't be distinguished from slow oscillations of the energy
DECIDING_PS = 100.0
SEVERAL = 8  # starts to recommend where there is one, which has no spread


@dataclass(frozen=True)
class Conditions:
    """Conditions of dynamics on which the worth of a GO depends.

    Attributes:
        timestep_fs: the timestep, fs.
        temperature_k: the temperature, K.
    """

    timestep_fs: float
    temperature_k: float

    def easier_than(self, usual: Conditions) -> list[str]:
        """Return in words what makes a GO under these conditions worth less than one under the usual conditions.

        A shorter timestep hides that an energy is not smooth. At a lower temperature atoms see less of the energy.
        """
        words = {
            "in shorter steps": self.timestep_fs < usual.timestep_fs,
            "at a lower temperature": self.temperature_k < usual.temperature_k,
        }
        return [word for word, holds in words.items() if holds]


def qualified(verdict: Verdict, duration_ps: float) -> Verdict:
    """Add a reason to a GO if the trajectory is too short for a decision.

    Args:
        verdict: the verdict on the trajectory.
        duration_ps: the length of the trajectory, ps.

    Returns:
        The verdict, with the same decision.
    """
    if verdict.decision != "GO" or duration_ps >= ENOUGH_PS:
        return verdict
    short = f"{duration_ps:g} ps are too short to decide; {DECIDING_PS:g} ps decide"
    return replace(verdict, reasons=(*verdict.reasons, short))


def judge_gate(
    metrics: Mapping[str, float],
    gate: Gate,
    faults: Sequence[Fault] = (),
    n_starts: int = 1,
    inapplicable: Mapping[str, str] | None = None,
) -> Verdict:
    """Judge the metrics by every limit of the gate.

    A metric that is a statistic over the starts is judged by its interval. The criterion is met if the complete
    interval lies within the limits, missed if it lies outside, and undecided otherwise. Every other metric is judged by
    its value. If a metric was not measured, or is NaN or infinite, the verdict is NO-GO, so that no gate is passed by
    measuring less. A metric in ``inapplicable`` is shown and not judged.

    Args:
        metrics: values by name, with the ends of intervals under ``<name>_ci_low`` and ``<name>_ci_high``.
        gate: the limits.
        faults: events such as an explosion; any fault is a NO-GO, whatever the limits.
        n_starts: the number of starts from which the metrics come.
        inapplicable: metrics that have no meaning for this system or precision, each with the reason.

    Returns:
        The verdict, with the criteria and the reasons.
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
    reasons = (*(fault.message for fault in faults), *map(_reason, told))
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
    """Return why a criterion was missed, or how many starts would decide it."""
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
    """Combine the verdicts on several systems: GO if every verdict is GO, NO-GO if any is NO-GO, else UNDECIDED.

    Args:
        verdicts: verdicts by name of the system, at least one.
    """
    criteria = tuple(
        replace(criterion, metric=f"{criterion.metric}/{name}")
        for name, verdict in verdicts.items()
        for criterion in verdict.criteria
    )
    decisions = {verdict.decision for verdict in verdicts.values()}
    decision: Decision = next((each for each in ("NO-GO", "UNDECIDED") if each in decisions), "GO")
    if decision == "GO":  # the reason of a GO is that the trajectory was short
        reasons = tuple(dict.fromkeys(reason for verdict in verdicts.values() for reason in verdict.reasons))
    else:
        reasons = tuple(
            f"{name}: {reason}"
            for name, verdict in verdicts.items()
            if verdict.decision == decision
            for reason in verdict.reasons
        )
    first = next(iter(verdicts.values()))
    faults = tuple(
        replace(fault, message=f"{name}: {fault.message}")
        for name, verdict in verdicts.items()
        for fault in verdict.faults
    )
    return Verdict(decision, first.gate, criteria, reasons, dict(verdicts), first.n_starts, faults)


NOT_RELAXED = "Check the structure and the force field: without a minimum the energy has no reference."
UNBOUND = "Check the structure: atoms that feel no force are further apart than the cutoff of the force field."
NO_START = (
    "There is no trajectory. Lower task.temperature_k or task.timestep_fs. If the molecule then stays intact, "
    "its atoms had left the training data."
)
BLEW_UP = "Look at the frames before the end: which atoms left the training data?"
MEASURED_NOTHING = (
    "A metric that was not measured can't be judged. A longer trajectory measures more. A system without bonds "
    "and without a lattice has neither max_bond_change_ang nor lindemann_ratio: remove both from the gate."
)


ADVICE = {FaultKind.NOT_RELAXED: NOT_RELAXED, FaultKind.UNBOUND: UNBOUND}  # more than what is said of the trajectory


def advice_for(verdict: Verdict, *, frames: bool) -> list[str]:
    """Return advice on a NO-GO.

    Args:
        verdict: the verdict on one system.
        frames: whether there is a trajectory.
    """
    missed = [find_metric(criterion.metric) for criterion in verdict.criteria if criterion.held is False]
    found = [text for text in dict.fromkeys(metric.advice for metric in METRICS if metric in missed) if text]
    kinds = {fault.kind for fault in verdict.faults}
    found += [text for kind, text in ADVICE.items() if kind in kinds]
    if not frames:
        return [*found, NO_START]
    if any(
        criterion.held is None and not criterion.undecided and not criterion.inapplicable
        for criterion in verdict.criteria
    ):
        found.append(MEASURED_NOTHING)
    return found or [BLEW_UP]


def format_limits(low: float | None, high: float | None) -> str:
    """Format limits as an interval: ``-1 … 1``, ``≤ 0.5``, ``≥ 3``.

    Args:
        low: the lower limit, or None.
        high: the upper limit, or None.
    """
    if low is None and high is None:
        return "anything"
    if low is None:
        return f"≤ {high:g}"
    if high is None:
        return f"≥ {low:g}"
    return f"{low:g} … {high:g}"
