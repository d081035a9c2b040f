"""Choose the timestep of dynamics by what moves. Nothing in this module imports torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.neighborlist import natural_cutoffs, neighbor_list

HYDROGEN = 1
# Non-metals of the second period. Their bonds with each other have periods from 14 fs (CO2, N2) on, and those with
# heavier atoms from 24 fs (SO2) on. Bonds of hydrogen have periods from 8 fs (H2) on, usually 10 fs.
LIGHT = frozenset(atomic_numbers[symbol] for symbol in ("B", "C", "N", "O", "F"))
FAST_FS, MEDIUM_FS, SLOW_FS = 0.5, 1.0, 2.0
BOND_TOLERANCE = 1.3  # a bond is a pair closer than this times the sum of the covalent radii


@dataclass(frozen=True)
class Timestep:
    """A timestep with its reason.

    Attributes:
        fs: the timestep, fs.
        reason: what moves so fast, as the end of a sentence.
    """

    fs: float
    reason: str


def usual_timestep(systems: Iterable[Atoms]) -> Timestep:
    """Choose the timestep for systems that move in one batch: the shortest that one of them needs.

    A batch has one clock: a longer timestep for one of its systems would save no time.

    Args:
        systems: the structures, at least one.
    """
    return min(map(_of_one, systems), key=lambda chosen: chosen.fs)


def _of_one(atoms: Atoms) -> Timestep:
    if (atoms.numbers == HYDROGEN).any():
        return Timestep(FAST_FS, "because hydrogen moves")
    light = np.isin(atoms.numbers, list(LIGHT))
    if not light.any():
        return Timestep(SLOW_FS, "because neither hydrogen nor B, C, N, O or F moves")
    among = atoms[light]
    first, second = neighbor_list("ij", among, natural_cutoffs(among, mult=BOND_TOLERANCE))
    if len(first):
        bond = "–".join(sorted((among.symbols[first[0]], among.symbols[second[0]])))
        return Timestep(FAST_FS, f"because light atoms have bonds with each other ({bond})")
    return Timestep(MEDIUM_FS, f"because light atoms move ({', '.join(sorted(set(among.symbols)))}) and no hydrogen")
