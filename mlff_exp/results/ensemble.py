"""Statistics over the starts of an ensemble, and how many starts decide.

The starts are independent. Heating is common to all starts and appears in the mean of their drifts. Arithmetic noise
makes the energy of each start walk at random and appears in the spread of the drifts. More starts narrow the intervals
of both.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from mlff_exp.results.estimate import Estimate

Array = npt.NDArray[np.float64]
Statistic = Literal["mean", "spread"]

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
MOST_STARTS = 100_000  # a number of starts beyond this is not named


def mean_of_starts(values: Array) -> Estimate:
    """Estimate the mean over independent starts, with its 95% interval by Student's t.

    Args:
        values: [n_starts], at least 2.
    """
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    return _mean_interval(mean, deviation, len(values))


def spread_of_starts(values: Array) -> Estimate:
    """Estimate the standard deviation over independent starts, with its 95% interval by the chi-square distribution.

    Args:
        values: [n_starts], at least 2.
    """
    return _spread_interval(float(values.std(ddof=1)), len(values))


def starts_that_decide(
    statistic: Statistic, estimate: Estimate, n_starts: int, low: float | None, high: float | None
) -> int | None:
    """Find the least number of starts whose interval would contain no limit, if mean and spread stayed the same.

    Args:
        statistic: the statistic over the starts that the estimate is.
        estimate: the estimate from ``n_starts`` starts.
        n_starts: the number of starts of the estimate, at least 2.
        low: the lower limit, or None.
        high: the upper limit, or None.

    Returns:
        The number, or None if no number up to `MOST_STARTS` decides.
    """
    deviation = (estimate.high - estimate.value) / _student_t(n_starts - 1) * math.sqrt(n_starts)

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
    """Return whether an interval lies within limits: True inside, False outside, None if it contains a limit.

    Args:
        interval: the estimate with its interval.
        low: the lower limit, or None.
        high: the upper limit, or None.
    """
    below = -math.inf if low is None else low
    above = math.inf if high is None else high
    if below <= interval.low and interval.high <= above:
        return True
    if interval.high < below or interval.low > above:
        return False
    return None


def _mean_interval(mean: float, deviation: float, n_starts: int) -> Estimate:
    half = _student_t(n_starts - 1) * deviation / math.sqrt(n_starts)
    return Estimate(mean, mean - half, mean + half)


def _student_t(degrees_of_freedom: int) -> float:
    """Return the value that Student's t exceeds with probability `TAIL`."""
    # Imported here: every command imports this module, few need SciPy, and its import takes half a second.
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, 1 - TAIL))


def _spread_interval(deviation: float, n_starts: int) -> Estimate:
    """Return the estimate of a spread; ``chdtri(dof, p)`` is the value that chi-square exceeds with probability p."""
    from scipy.special import chdtri

    dof = n_starts - 1
    low, high = (math.sqrt(dof / float(chdtri(dof, tail))) for tail in (TAIL, 1 - TAIL))
    return Estimate(deviation, deviation * low, deviation * high)
