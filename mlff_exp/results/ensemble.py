"""Statistics over the starts of an ensemble, and how many starts decide.

The starts are independent. What heats is common to all of them and shows in the mean of their drifts; arithmetic noise
makes the energy of each start walk by itself and shows in the spread. Both become surer with more starts.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, stdtrit

from mlff_exp.results.estimate import Estimate

Array = npt.NDArray[np.float64]
Statistic = Literal["mean", "spread"]

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
MOST_STARTS = 100_000  # a number of starts beyond this is not named


def mean_of_starts(values: Array) -> Estimate:
    """Mean over independent starts with its 95% interval by Student's t.

    Args:
        values: [n_starts], at least 2.
    """
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    return _mean_interval(mean, deviation, len(values))


def spread_of_starts(values: Array) -> Estimate:
    """Standard deviation over independent starts with its 95% interval by the chi-square distribution.

    Args:
        values: [n_starts], at least 2.
    """
    return _spread_interval(float(values.std(ddof=1)), len(values))


def starts_that_decide(
    statistic: Statistic, estimate: Estimate, n_starts: int, low: float | None, high: float | None
) -> int | None:
    """The least number of starts whose interval would not straddle a limit, if mean and spread stayed as they are.

    Args:
        statistic: what the estimate is of the starts.
        estimate: from ``n_starts`` starts.
        n_starts: that it was measured with, at least 2.
        low: the lower limit, or None.
        high: the upper limit, or None.

    Returns:
        The number, or None if no number up to `MOST_STARTS` decides.
    """
    deviation = (estimate.high - estimate.value) / float(stdtrit(n_starts - 1, 1 - TAIL)) * math.sqrt(n_starts)

    def decides(number: int) -> bool:
        if statistic == "mean":
            interval = _mean_interval(estimate.value, deviation, number)
        else:
            interval = _spread_interval(estimate.value, number)
        return is_within(interval, low, high) is not None

    least, most = 2, MOST_STARTS
    if not decides(most):
        return None
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if decides(middle) else (middle + 1, most)
    return least


def is_within(interval: Estimate, low: float | None, high: float | None) -> bool | None:
    """Whether an interval lies between the limits: True inside, False outside, None if it straddles one of them."""
    below = -math.inf if low is None else low
    above = math.inf if high is None else high
    if below <= interval.low and interval.high <= above:
        return True
    if interval.high < below or interval.low > above:
        return False
    return None


def _mean_interval(mean: float, deviation: float, n_starts: int) -> Estimate:
    half = float(stdtrit(n_starts - 1, 1 - TAIL)) * deviation / math.sqrt(n_starts)
    return Estimate(mean, mean - half, mean + half)


def _spread_interval(deviation: float, n_starts: int) -> Estimate:
    """``chdtri(dof, p)`` is the value that chi-square exceeds with the probability p."""
    dof = n_starts - 1
    low, high = (math.sqrt(dof / float(chdtri(dof, tail))) for tail in (TAIL, 1 - TAIL))
    return Estimate(deviation, deviation * low, deviation * high)
