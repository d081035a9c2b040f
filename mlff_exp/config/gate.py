"""Limits of a gate."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mlff_exp.config.checks import plain
from mlff_exp.config.errors import ConfigError

USUAL_GATE = "strict"  # the default in conf/config.yaml


@dataclass
class Limit:
    """The interval that a metric's value must lie in; an absent bound does not limit."""

    min: float | None = None
    max: float | None = None


def _check_limit(key: str, limit: Limit) -> None:
    for end, value in (("min", limit.min), ("max", limit.max)):
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"{key}.{end}={value} must be a finite number, or null for no limit")
    if limit.min is not None and limit.max is not None and limit.min > limit.max:
        raise ConfigError(f"{key}: nothing lies between min={limit.min:g} and max={limit.max:g}")


@dataclass
class Gate:
    """The criteria by which an NVE run is judged.

    Attributes:
        name: name of the gate; ``off`` has no criteria.
        criteria: limits by name of the metric.
    """

    name: str = "off"
    criteria: dict[str, Limit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plain("gate.name", self.name)
        if (self.name == "off") == bool(self.criteria):
            found = ", ".join(self.criteria) or "none"
            raise ConfigError(f"gate.name={self.name!r} with criteria: {found}; off has none, and says so by gate=off")
        for metric, limit in self.criteria.items():
            _check_limit(f"gate.criteria.{metric}", limit)
