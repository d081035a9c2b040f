"""Crystals without covalent bonds, such as metals and salts, and how far their atoms are from their lattice sites."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.data import atomic_numbers
from ase.neighborlist import neighbor_list

from mlff_exp.dynamics.bonds import find_bonds
from mlff_exp.dynamics.state import FloatArray

# Elements that make covalent bonds with each other; every other element is a metal.
_SYMBOLS = "H He B C N O F Ne Si P S Cl Ar Ge As Se Br Kr Sb Te I Xe At Rn"
COVALENT = frozenset(atomic_numbers[symbol] for symbol in _SYMBOLS.split())
COVALENT_FRACTION = 0.5  # of the atoms; in a system where fewer have a covalent bond, there is little to follow
NEAREST_ANG = 3.0  # where the search for the nearest neighbours begins; it doubles until each atom has one


def is_lattice(atoms: Atoms) -> bool:
    """Whether a system is judged by the sites of its lattice and not by its bonds.

    It is if it is periodic in two or three directions, so that it can't rotate, and fewer than half of its atoms have a
    covalent bond: metals, salts and crystals of noble gases. Silicon, ice and water have covalent bonds.
    """
    if atoms.pbc.sum() < 2:
        return False
    bonds, covalent = find_bonds(atoms), np.isin(atoms.numbers, list(COVALENT))
    both = covalent[bonds.first] & covalent[bonds.second]
    bonded = np.union1d(bonds.first[both], bonds.second[both])
    return len(bonded) < COVALENT_FRACTION * len(atoms)


def nearest_neighbour_ang(atoms: Atoms) -> float:
    """Mean over the atoms of the distance to the nearest other atom or image, Å."""
    cutoff = NEAREST_ANG
    while True:
        first, distances = neighbor_list("id", atoms, cutoff)
        nearest = np.full(len(atoms), np.inf)
        np.minimum.at(nearest, first, distances)
        if np.isfinite(nearest).all():
            return float(nearest.mean())
        cutoff *= 2


def lindemann_ratio(relaxed: Atoms, positions: npt.NDArray[np.float64]) -> FloatArray:
    """Root mean square distance of the atoms from their sites, over the distance of nearest neighbours.

    A crystal melts where the ratio is between 0.1 and 0.15: F. A. Lindemann, Phys. Z. 11, 609 (1910); J. J. Gilvarry,
    Phys. Rev. 102, 308 (1956).

    Args:
        relaxed: every atom at its site; periodic.
        positions: [n_frames, n_atoms, 3] Å, not wrapped into the cell. Where the centre of mass went does not count.

    Returns:
        [n_frames], the mean square over the atoms of each frame.
    """
    away = positions - relaxed.positions
    away = away - np.average(away, axis=1, weights=relaxed.get_masses())[:, None]
    ratio: FloatArray = np.sqrt(np.square(away).sum(axis=2).mean(axis=1)) / nearest_neighbour_ang(relaxed)
    return ratio
