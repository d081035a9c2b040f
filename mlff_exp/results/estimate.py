"""A number with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LOW, HIGH = "_ci_low", "_ci_high"  # suffixes of a metric's name: the two ends of its interval


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its interval; all three are equal where there is no scatter."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Estimate:
        """Make an estimate without scatter."""
        return cls(value, value, value)

    @classmethod
    def from_metrics(cls, name: str, metrics: Mapping[str, float]) -> Estimate:
        """Make an estimate from a metric and its interval; exact where no interval was measured.

        Raises:
            KeyError: the metric is absent.
        """
        value = metrics[name]
        return cls(value, metrics.get(f"{name}{LOW}", value), metrics.get(f"{name}{HIGH}", value))

    def as_metrics(self, name: str) -> dict[str, float]:
        """Return the three numbers under the names of metrics."""
        return {name: self.value, f"{name}{LOW}": self.low, f"{name}{HIGH}": self.high}

    def scaled(self, factor: float) -> Estimate:
        """Return the estimate multiplied by a positive factor."""
        return Estimate(factor * self.value, factor * self.low, factor * self.high)

    def distance_from(self, ideal: float) -> Estimate:
        """Return the distance of the number from an ideal value; the interval contains every possible distance."""
        ends = abs(self.low - ideal), abs(self.high - ideal)
        nearest = 0.0 if self.low <= ideal <= self.high else min(ends)
        return Estimate(abs(self.value - ideal), nearest, max(ends))
