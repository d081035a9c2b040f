"""A number with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LOW, HIGH = "_ci_low", "_ci_high"  # behind the name of a metric: the ends of its interval


@dataclass(frozen=True)
class Estimate:
    """A number with the two ends of its interval; without scatter all three are the same."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Estimate:
        """A number without scatter."""
        return cls(value, value, value)

    @classmethod
    def from_metrics(cls, name: str, metrics: Mapping[str, float]) -> Estimate:
        """A metric with its interval, or exact where none was measured.

        Raises:
            KeyError: the metric is absent.
        """
        value = metrics[name]
        return cls(value, metrics.get(f"{name}{LOW}", value), metrics.get(f"{name}{HIGH}", value))

    def as_metrics(self, name: str) -> dict[str, float]:
        """The three numbers by the names that metrics have."""
        return {name: self.value, f"{name}{LOW}": self.low, f"{name}{HIGH}": self.high}

    def scaled(self, factor: float) -> Estimate:
        """The estimate of a positive multiple."""
        return Estimate(factor * self.value, factor * self.low, factor * self.high)

    def distance_from(self, ideal: float) -> Estimate:
        """How far the number is from an ideal one; the interval holds every distance that is possible."""
        ends = abs(self.low - ideal), abs(self.high - ideal)
        nearest = 0.0 if self.low <= ideal <= self.high else min(ends)
        return Estimate(abs(self.value - ideal), nearest, max(ends))
