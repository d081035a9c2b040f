"""Check the numbers of a result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


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


def refuse_impossible_times(name: str, values_ms: Sequence[float], blocks: Sequence[int]) -> None:
    """Refuse times that no clock gives, and blocks that are not those of the times.

    Args:
        name: of what was timed.
        values_ms: times of calls in ms.
        blocks: number of calls of each block.

    Raises:
        ValueError: the message names the value.
    """
    if (least := min(values_ms, default=0.0)) < 0:
        raise ValueError(f"timing.{name}.values_ms={least}: no time is negative")
    if min(blocks, default=1) < 1 or sum(blocks) != len(values_ms):
        raise ValueError(f"timing.{name}.blocks: they hold {sum(blocks)} calls, and values_ms has {len(values_ms)}")


def refuse_foreign_environment(environment: Mapping[str, Any]) -> None:
    """Refuse an environment whose packages are no mapping.

    Raises:
        ValueError: the message names the value.
    """
    packages = environment.get("packages", {})
    if not isinstance(packages, Mapping):
        raise ValueError(f"environment.packages={str(packages)[:80]} is not a mapping")
