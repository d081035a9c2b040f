"""Check the numbers of a result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlff_exp.results.metrics import INTERVAL, find_metric

if TYPE_CHECKING:
    from mlff_exp.results.result import Timing

# Nothing takes no time, and nothing is infinitely fast; a spread may be zero.
POSITIVE_UNITS = ("ms", "1/s", "ns/day", "×")
MAY_BE_ZERO = ("latency_mad_ms",)


def refuse_non_finite(metrics: Mapping[str, float], where: str = "") -> None:
    """Refuse NaN and infinity among metrics.

    Args:
        metrics: by name.
        where: text behind the value in the message.

    Raises:
        ValueError: the message names the metric.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise ValueError(f"metric {name!r} is {value}{where}: leave out what does not apply")


def refuse_impossible(metrics: Mapping[str, float], timing: Mapping[str, Timing]) -> None:
    """Refuse numbers that no run can have measured.

    Args:
        metrics: by name; those of other packages are not checked.
        timing: by what was timed.

    Raises:
        ValueError: a time or a speedup is not positive, an error is negative, or blocks do not add up. The message
            names it.
    """
    for name, value in metrics.items():
        metric = find_metric(name)
        if metric is None or metric.compute is not None:
            continue
        if metric.unit in POSITIVE_UNITS and metric.name not in MAY_BE_ZERO and value <= 0:
            raise ValueError(f"metrics.{name}={value:g} is not positive")
        # The interval of a mean may reach below zero where no value does.
        if metric.better == "lower" and value < 0 and not INTERVAL.search(name.partition("/")[0]):
            raise ValueError(f"metrics.{name}={value:g} is negative")
    for name, timed in timing.items():
        _check_timing(f"timing.{name}", timed)


def _check_timing(where: str, timed: Timing) -> None:
    for part in ("values_ms", "warmup_ms", "wall_ms"):
        for value in getattr(timed, part):
            if value < 0:  # a clock may not resolve a short time
                raise ValueError(f"{where}.{part} holds {value:g}, which is negative")
    if timed.first_call_s < 0:
        raise ValueError(f"{where}.first_call_s={timed.first_call_s:g} is negative")
    n_values = len(timed.values_ms)
    if min(timed.blocks, default=1) < 1 or sum(timed.blocks) != n_values:
        raise ValueError(f"{where}.blocks do not add up to its {n_values} values_ms")
    _check_length(f"{where}.wall_ms", timed.wall_ms, n_values)
    _check_length(f"{where}.turns", timed.turns, len(timed.blocks))


def _check_length(where: str, values: Sequence[Any], expected: int) -> None:
    if values and len(values) != expected:
        raise ValueError(f"{where} has {len(values)} numbers; expected are {expected} or none")


def check_environment(environment: Mapping[str, Any]) -> None:
    """Refuse facts about the machine that no run records.

    Args:
        environment: plain values by name; any of them may be absent.

    Raises:
        ValueError: ``packages`` is no mapping, or ``gpu`` or ``git_diff`` is no text. The message names it.
    """
    if not isinstance(packages := environment.get("packages", {}), Mapping):
        raise ValueError(f"environment.packages={packages!r:.80} is not a mapping")
    for name in ("gpu", "git_diff"):
        if not isinstance(text := environment.get(name) or "", str):
            raise ValueError(f"environment.{name}={text!r:.80} is not str")
