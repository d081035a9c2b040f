"""Check the numbers of a result."""

from __future__ import annotations

import math
from collections.abc import Mapping


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
