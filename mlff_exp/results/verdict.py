"""The verdict of a gate on a run, and its criteria."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

Decision = Literal["GO", "NO-GO", "UNDECIDED"]


@dataclass(frozen=True)
class Criterion:
    """One line of a verdict: a metric, its limits and whether the metric met them.

    Attributes:
        metric: name of the metric.
        value: the measured value; None if there is none.
        min, max: the limits, or None.
        held: whether the metric met the limits; None if it was not measured, or if its interval contains a limit.
        low, high: the interval of a metric that is judged by its interval; None for other metrics.
        undecided: whether the interval contains a limit.
        starts: the number of starts that would decide an undecided criterion; None if no reasonable number would.
        inapplicable: the reason why the metric has no meaning for this system or precision and is not judged; "" for a
            criterion that is judged.
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


class FaultKind(StrEnum):
    """Kinds of events that make a NO-GO, whatever the limits of the gate."""

    NOT_RELAXED = "not_relaxed"  # the structure is at no minimum
    UNBOUND = "unbound"  # atoms feel no force of the others
    NOT_STARTED = "not_started"
    BLEW_UP = "blew_up"
    UNKNOWN = "unknown"  # an earlier version recorded no kind


@dataclass(frozen=True)
class Fault:
    """An event that makes a NO-GO.

    Attributes:
        kind: a `FaultKind`, to which the advice belongs.
        message: text for the user.
    """

    kind: str
    message: str


@dataclass(frozen=True)
class Verdict:
    """The decision on an ensemble of starts.

    Attributes:
        decision: the decision on all systems. GO if every criterion is met and there is no fault; UNDECIDED if some
            intervals contain a limit and nothing else is wrong; NO-GO otherwise.
        gate: name of the gate.
        criteria: all criteria. If there are several systems, each is named ``<metric>/<system>``.
        reasons: sentences that explain the decision.
        systems: the verdict on each system by name, if there are several.
        n_starts: the number of starts that were judged.
        faults: events besides the criteria that make a NO-GO, such as an explosion.
    """

    decision: Decision
    gate: str
    criteria: tuple[Criterion, ...]
    reasons: tuple[str, ...]
    systems: Mapping[str, Verdict] = field(default_factory=dict)
    n_starts: int = 1
    faults: tuple[Fault, ...] = ()

    @property
    def starts_that_decide(self) -> int | None:
        """The number of starts that would decide an UNDECIDED verdict; None if there is no such number."""
        undecided = [criterion.starts for criterion in self.criteria if criterion.undecided]
        known = [starts for starts in undecided if starts is not None]
        return max(known) if known and len(known) == len(undecided) else None

    def on(self, system: str) -> Verdict:
        """Return the verdict on one of the systems of the run.

        Args:
            system: name of the system.
        """
        return self.systems.get(system, self)
