"""What a gate says of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Criterion:
    """One line of a verdict: a metric, its limits and whether it held; value and ``held`` are None if not measured."""

    metric: str
    value: float | None
    min: float | None
    max: float | None
    held: bool | None


@dataclass(frozen=True)
class Verdict:
    """GO if every criterion held and nothing blew up.

    Attributes:
        decision: on all systems.
        gate: its name.
        criteria: all of them; behind a metric's name and a slash stands its system, if there are several.
        reasons: for people.
        systems: the verdict on each, by name, if there are several.
    """

    decision: Literal["GO", "NO-GO"]
    gate: str
    criteria: tuple[Criterion, ...]
    reasons: tuple[str, ...]
    systems: Mapping[str, Verdict] = field(default_factory=dict)

    def on(self, system: str) -> Verdict:
        """The verdict on one of the systems, which moved in this run."""
        return self.systems.get(system, self)
