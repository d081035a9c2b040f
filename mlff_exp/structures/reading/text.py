"""What the text of a structure file gives besides what ASE reads."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ase.data import atomic_numbers

ADVICE = "ASE ignores that: convert the file to extxyz, with masses in a column 'mass' and spin=… for a multiplicity"
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Declared:
    """What the text of a file gives; None where it does not give it.

    Attributes:
        charge: total charge, e.
        multiplicity: 2S + 1.
        n_atoms: number of lines that are atoms.
        site_charges: charges of the sites of a crystal in the order of the file, e; symmetry makes atoms of them.
    """

    charge: float | None = None
    multiplicity: float | None = None
    n_atoms: int | None = None
    site_charges: tuple[float, ...] = ()


def check_numbers(words: Iterable[str]) -> None:
    """Refuse numbers that only Python reads, as ``1_0`` for ten, or digits of another script.

    Args:
        words: of the parts of a file that hold numbers.

    Raises:
        ValueError: there is such a number.
    """
    for word in words:
        if ("_" in word or not word.isascii()) and not NUMBER.fullmatch(word) and _python_reads(word):
            raise ValueError(f"its number {word!r} is not written in plain digits, as 10 or -2.5e-3")


def _python_reads(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def is_element(symbol: str) -> bool:
    """Return whether a word is the symbol of an element; X, which ASE counts as one, is not."""
    return symbol in atomic_numbers and symbol != "X"
