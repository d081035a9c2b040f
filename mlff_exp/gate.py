"""From metrics and limits to GO or NO-GO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlff_exp.config import Gate
from mlff_exp.result import Criterion, Verdict


def judge(metrics: Mapping[str, float], gate: Gate, blow_up: str | None) -> Verdict:
    """Hold every limit of the gate against the metrics.

    A criterion whose metric was not measured has not held: a gate can't be passed by measuring less.

    Args:
        metrics: by name; the worst replica's where there are several.
        gate: its limits.
        blow_up: what went wrong in the trajectory, or None.
    """
    criteria = []
    reasons = [] if blow_up is None else [blow_up]
    for metric, limit in gate.criteria.items():
        value = metrics.get(metric)
        held = (
            value is not None
            and (limit.min is None or value >= limit.min)
            and (limit.max is None or value <= limit.max)
        )
        criteria.append(Criterion(metric, value, limit.min, limit.max, held))
        if not held:
            shown = "not measured" if value is None else f"{value:.4g}"
            reasons.append(f"{metric} is {shown}, allowed is {interval(limit.min, limit.max)}")
    return Verdict("NO-GO" if reasons else "GO", gate.name, tuple(criteria), tuple(reasons))


def together(verdicts: Mapping[str, Verdict]) -> Verdict:
    """One verdict on several systems, by name: GO if it is for each of them."""
    criteria = tuple(
        replace(criterion, metric=f"{criterion.metric}/{name}")
        for name, verdict in verdicts.items()
        for criterion in verdict.criteria
    )
    reasons = [f"{name}: {reason}" for name, verdict in verdicts.items() for reason in verdict.reasons]
    gate = next(iter(verdicts.values())).gate
    return Verdict("NO-GO" if reasons else "GO", gate, criteria, tuple(reasons))


def interval(low: float | None, high: float | None) -> str:
    """An interval in words: ``-1 … 1``, ``≤ 0.5``, ``≥ 3``."""
    if low is None and high is None:
        return "anything"
    if low is None:
        return f"≤ {high:g}"
    if high is None:
        return f"≥ {low:g}"
    return f"{low:g} … {high:g}"
