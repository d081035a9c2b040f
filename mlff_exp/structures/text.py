"""What the text of a structure file gives besides what ASE reads."""

from __future__ import annotations

from dataclasses import dataclass

ADVICE = "ASE ignores that: convert the file to extxyz, with masses in a column 'mass' and spin=… for a multiplicity"


@dataclass(frozen=True)
class Declared:
    """What the text of a file gives; None where it does not give it.

    Attributes:
        charge: total charge, e.
        multiplicity: 2S + 1.
        n_atoms: number of lines that are atoms.
    """

    charge: float | None = None
    multiplicity: float | None = None
    n_atoms: int | None = None
