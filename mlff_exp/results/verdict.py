"""What a gate says of a run."""

from __future__ import annotations

from dataclasses import dataclass
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
    """GO if every criterion held and nothing blew up."""

    decision: Literal["GO", "NO-GO"]
    gate: str
    criteria: tuple[Criterion, ...]
    reasons: tuple[str, ...]
