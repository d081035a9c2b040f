"""What a number in a result may be."""

from __future__ import annotations

import math
from collections.abc import Mapping


def refuse_non_finite(metrics: Mapping[str, float], where: str = "") -> None:
    """Refuse NaN and infinity among metrics.

    Raises:
        ValueError: names the metric.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise ValueError(f"metric {name!r} is {value}{where}: leave out what does not apply")
