"""Try the properties on a force field, and say which hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ase import Atoms
from torch import nn

from mlff_exp.models import ForceField
from mlff_exp.testing.properties import PROPERTIES, InapplicableError, severity
from mlff_exp.testing.subject import Subject, prepare

MARKS = {True: "holds", False: "FAILS", None: "–"}


@dataclass(frozen=True)
class PropertyResult:
    """Whether a property holds.

    Attributes:
        name: of the property.
        holds: None where the property has no meaning.
        value: the largest violation that was found.
        limit: the largest violation that rounding explains.
        unit: of both.
        words: what was done to the structure, such as the matrix that turned it; or why the property has no meaning.
    """

    name: str
    holds: bool | None
    value: float
    limit: float
    unit: str
    words: str

    def line(self) -> str:
        """Return one line of text; it says what was done only where the property fails."""
        if self.holds is None:
            return f"{self.name:12} {MARKS[None]:6} {self.words}"
        found = f"{self.name:12} {MARKS[self.holds]:6} {self.value:.2g} {self.unit}, allowed {self.limit:.2g}"
        return found if self.holds else f"{found}: {self.words}"


def check(
    force_field: nn.Module | ForceField,
    atoms: Atoms | None = None,
    *,
    properties: Iterable[str] = tuple(PROPERTIES),
    seed: int = 0,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> tuple[PropertyResult, ...]:
    """Try properties on a force field in FP64, and print which hold.

    Args:
        force_field: a `mlff_exp.models.ForceField`, or a `mlff_exp.models.GraphForceField` such as a network of your
            own. It is not changed.
        atoms: a structure of elements that it knows. It is displaced at random by some 0.05 Å. If None, a small
            molecule or a cluster of known elements.
        properties: names in `PROPERTIES`.
        seed: random seed of displacements and transforms.
        device: where it is evaluated.
        say: gets each line; ``print``.

    Returns:
        One result for each property.

    Raises:
        TypeError: it is no force field.
        ValueError: it does not know an element of the structure, or does not run in FP64.
    """
    subject, results = prepare(force_field, atoms, seed=seed, device=device), []
    for name in properties:
        results.append(check_property(subject, name))
        say(results[-1].line())
    return tuple(results)


def check_property(subject: Subject, name: str) -> PropertyResult:
    """Try one property.

    Args:
        subject: from `prepare`.
        name: in `PROPERTIES`.
    """
    try:
        worst = max(PROPERTIES[name].measure(subject), key=severity)
    except InapplicableError as reason:
        return PropertyResult(name, None, 0.0, 0.0, "", str(reason))
    return PropertyResult(name, worst.holds, worst.value, worst.limit, worst.unit, worst.how)


def markdown_table(checked: Mapping[str, Sequence[PropertyResult]]) -> list[str]:
    """Return the lines of a table: a row for each model, a column for each property.

    Args:
        checked: results by the words that describe a model; all of the same properties.
    """
    names = [result.name for result in next(iter(checked.values()))]
    rows = [["", *names], ["---"] * (len(names) + 1)]
    rows += [[model, *map(_cell, results)] for model, results in checked.items()]
    return [f"| {' | '.join(row)} |" for row in rows]


def _cell(result: PropertyResult) -> str:
    if result.holds is None:
        return MARKS[None]
    return "yes" if result.holds else f"**no**: {result.value:.2g} {result.unit}"
