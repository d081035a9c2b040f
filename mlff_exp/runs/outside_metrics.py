"""Compute the metrics of other packages from a finished result."""

from __future__ import annotations

import math
from dataclasses import replace

from mlff_exp.common import load_object, mask_secrets, write_below_bars
from mlff_exp.results import METRICS, NOT_COMPUTED, Metric, RunResult


def add_outside_metrics(result: RunResult) -> RunResult:
    """Return the result with every metric that has a function of its own.

    If a function fails, its metric is left out, a warning is printed and a tag of the result names the metric.

    Args:
        result: a finished result with its configuration.
    """
    found: dict[str, float] = {}
    failed = []
    for metric in _outside():
        try:
            value = _computed(metric, str(metric.compute), result)
        except Exception as error:
            failed.append(mask_secrets(f"{metric.name}: {type(error).__name__}: {error}"))
            write_below_bars(f"mlff-exp: warning: the result is safe, but a metric was not computed: {failed[-1]}")
        else:
            if value is not None:
                found[metric.name] = value
    tags = {NOT_COMPUTED: "; ".join(failed)} if failed else {}
    return replace(result, metrics={**result.metrics, **found}, tags={**result.tags, **tags})


def copy_outside_metrics(earlier: RunResult, result: RunResult) -> RunResult:
    """Copy the metrics of `add_outside_metrics` from an earlier state of a result, to call each function once."""
    names = {metric.name for metric in _outside()}
    metrics = {name: value for name, value in earlier.metrics.items() if name in names}
    tags = {name: text for name, text in earlier.tags.items() if name == NOT_COMPUTED}
    return replace(result, metrics={**result.metrics, **metrics}, tags={**result.tags, **tags})


def _outside() -> list[Metric]:
    return [metric for metric in METRICS if metric.compute is not None]


def _computed(metric: Metric, function: str, result: RunResult) -> float | None:
    if metric.name in result.metrics:
        raise ValueError("the task measured a metric of this name itself")
    value = load_object(function)(result)
    if value is None:
        return None
    if isinstance(value, bool | str):
        raise TypeError(f"{function} returned {value!r}, which is no number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{function} returned {number}: return None where the metric does not apply")
    return number
