"""Choose timestep, length and temperature of dynamics by what moves. Nothing in this module imports torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

HYDROGEN = 1
# Non-metals of the second period. Their bonds with each other have periods from 14 fs (CO2, N2) on, and those with
# heavier atoms from 24 fs (SO2) on. Bonds of hydrogen have periods from 8 fs (H2) on, usually 10 fs.
LIGHT = frozenset(atomic_numbers[symbol] for symbol in ("B", "C", "N", "O", "F"))
FAST_FS, MEDIUM_FS, SLOW_FS = 0.5, 1.0, 2.0
N_STEPS = 200_000  # so every run covers about the same number of the fastest vibrations
TEMPERATURE_K = 300.0
# Some two thirds of the melting point, because a small perfect crystal of a model may melt earlier than the real one.
NOBLE_GASES_K = {"He": 1.0, "Ne": 15.0, "Ar": 50.0, "Kr": 75.0, "Xe": 100.0, "Rn": 130.0}
BOND_TOLERANCE = 1.3  # a bond is a pair closer than this times the sum of the covalent radii


@dataclass(frozen=True)
class Motion:
    """How dynamics usually runs for what moves.

    Attributes:
        timestep_fs: the timestep, fs.
        reason: what moves so fast, as the end of a sentence.
        temperature_k: the temperature, K.
        cold: why the temperature is below `TEMPERATURE_K`, as the end of a sentence; empty if it is not.
    """

    timestep_fs: float
    reason: str
    temperature_k: float = TEMPERATURE_K
    cold: str = ""

    @property
    def duration_ps(self) -> float:
        """The length of a trajectory, ps: `N_STEPS` timesteps."""
        return N_STEPS * self.timestep_fs / 1000


def usual_motion(systems: Iterable[Atoms]) -> Motion:
    """Choose timestep, length and temperature for systems that move in one batch.

    A batch has one clock: a longer timestep for one of its systems would save no time. So the timestep is the shortest
    that one of them needs, and the temperature is the lowest.

    Args:
        systems: the structures, at least one.
    """
    return together(map(_of_one, systems))


def together(motions: Iterable[Motion]) -> Motion:
    """Return the shortest timestep and the lowest temperature of several motions, at least one, with their reasons."""
    each = list(motions)
    fastest = min(each, key=lambda motion: motion.timestep_fs)
    coldest = min(each, key=lambda motion: motion.temperature_k)
    return replace(fastest, temperature_k=coldest.temperature_k, cold=coldest.cold)


def _of_one(atoms: Atoms) -> Motion:
    motion, elements = _by_timestep(atoms), set(atoms.symbols)
    if not elements <= NOBLE_GASES_K.keys():
        return motion
    coldest = min(NOBLE_GASES_K[symbol] for symbol in elements)
    return replace(motion, temperature_k=coldest, cold="because noble gases melt below 300 K")


def _by_timestep(atoms: Atoms) -> Motion:
    if (atoms.numbers == HYDROGEN).any():
        return Motion(FAST_FS, "because hydrogen moves")
    light = np.isin(atoms.numbers, list(LIGHT))
    if not light.any():
        return Motion(SLOW_FS, "because neither hydrogen nor B, C, N, O or F moves")
    # Imported here: it takes a third of a second, and hydrogen moves in most systems.
    from ase.neighborlist import natural_cutoffs, neighbor_list

    among = atoms[light]
    first, second = neighbor_list("ij", among, natural_cutoffs(among, mult=BOND_TOLERANCE))
    if len(first):
        bond = "–".join(sorted((among.symbols[first[0]], among.symbols[second[0]])))
        return Motion(FAST_FS, f"because light atoms have bonds with each other ({bond})")
    return Motion(MEDIUM_FS, f"because light atoms move ({', '.join(sorted(set(among.symbols)))}) and no hydrogen")
