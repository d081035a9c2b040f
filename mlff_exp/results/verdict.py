"""What a gate says of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Decision = Literal["GO", "NO-GO", "UNDECIDED"]


@dataclass(frozen=True)
class Criterion:
    """One line of a verdict: a metric, its limits and whether it held.

    Attributes:
        metric: its name.
        value: None if it was not measured.
        min, max: limits, or None.
        held: None if it was not measured, or if its interval straddles a limit.
        low, high: interval of a metric that is judged by one.
        undecided: whether the interval straddles a limit.
        starts: how many starts would decide an undecided one; None if no reasonable number would.
        inapplicable: why the metric can't be measured on this system or at this precision, so that it is not judged; ""
            for a criterion that is.
    """

    metric: str
    value: float | None
    min: float | None
    max: float | None
    held: bool | None
    low: float | None = None
    high: float | None = None
    undecided: bool = False
    starts: int | None = None
    inapplicable: str = ""


@dataclass(frozen=True)
class Verdict:
    """The decision on an ensemble of starts.

    Attributes:
        decision: on all systems. GO if every criterion held and nothing went wrong; UNDECIDED if nothing speaks
            against it but an interval that straddles a limit; NO-GO otherwise.
        gate: its name.
        criteria: all of them; behind a metric's name and a slash stands its system, if there are several.
        reasons: for people.
        systems: the verdict on each, by name, if there are several.
        n_starts: how many starts were judged.
        faults: what went wrong besides the criteria, such as an explosion.
    """

    decision: Decision
    gate: str
    criteria: tuple[Criterion, ...]
    reasons: tuple[str, ...]
    systems: Mapping[str, Verdict] = field(default_factory=dict)
    n_starts: int = 1
    faults: tuple[str, ...] = ()

    @property
    def starts_that_decide(self) -> int | None:
        """How many starts would decide, if the verdict is UNDECIDED and some number would."""
        undecided = [criterion.starts for criterion in self.criteria if criterion.undecided]
        known = [starts for starts in undecided if starts is not None]
        return max(known) if known and len(known) == len(undecided) else None

    def on(self, system: str) -> Verdict:
        """The verdict on one of the systems, which moved in this run."""
        return self.systems.get(system, self)
