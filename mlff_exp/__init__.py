"""How fast can a force field run, what does each optimisation cost, and is it still stable?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlff_exp.calculator import StudentForceFieldCalculator

__all__ = ["StudentForceFieldCalculator"]


def __getattr__(name: str) -> Any:
    # On first use, so that checking a configuration need not wait for torch.
    if name == "StudentForceFieldCalculator":
        from mlff_exp.calculator import StudentForceFieldCalculator

        return StudentForceFieldCalculator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
