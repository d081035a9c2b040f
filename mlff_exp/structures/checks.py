"""Checks of structures before any work: broken cells, coinciding atoms, neighbour lists that exceed the memory."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import psutil
from ase import Atoms
from ase.geometry import complete_cell, minkowski_reduce
from scipy.spatial import cKDTree

from mlff_exp.structures.datasets import Dataset

COINCIDENT_ANG = 0.1  # two atoms of a valid structure are farther apart
SHORTEST_PERIOD_ANG = 1.2  # the shortest period of a known chain is 1.28 Å, in a cumulene
LARGEST_POSITION_ANG = 1e6  # beyond it, differences of FP64 positions lose the digits that forces need
MAX_ATOMS = 1_000_000
MAX_IMAGES = 100_000  # images of a cell in which a neighbour list searches for every pair
# Smallest sine of the angle between two periodic vectors, or between one and the plane of the others.
FLATTEST_CELL = 1e-4
# A pair of a neighbour list has an index, a reverse index, a mask and a shift; building the list takes twice as much.
BYTES_PER_PAIR = 100
DENSEST_PER_ANG3 = 0.2  # atoms/Å³ where the cell does not give the density: diamond has 0.18

Array = npt.NDArray[np.float64]


def check_structure(atoms: Atoms) -> None:
    """Refuse a structure that no force field can evaluate; cheap enough for every batch.

    Raises:
        ValueError: there are no atoms or too many, an atomic number is no element's, a position is not finite or too
            large, or `check_cell` refuses the cell. The message names the atoms.
    """
    if len(atoms) == 0:
        raise ValueError("empty structure: there are no atoms to evaluate")
    if len(atoms) > MAX_ATOMS:
        raise ValueError(f"the structure has {len(atoms)} atoms; at most {MAX_ATOMS} are allowed")
    if atoms.numbers.min() < 1 or atoms.numbers.max() > 118:
        unknown = np.flatnonzero((atoms.numbers < 1) | (atoms.numbers > 118))
        raise ValueError(
            f"atoms {_few(unknown)} have no element: their atomic numbers are {_few(atoms.numbers[unknown])}, "
            "and legal ones are 1 to 118"
        )
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(bad):
        raise ValueError(f"positions are NaN or infinite for atoms {_few(bad)} of {atoms.get_chemical_formula()}")
    far = np.flatnonzero((np.abs(atoms.positions) > LARGEST_POSITION_ANG).any(axis=1))
    if len(far):
        raise ValueError(f"positions are more than {LARGEST_POSITION_ANG:g} Å from the origin for atoms {_few(far)}")
    check_cell(atoms)


def check_cell(atoms: Atoms) -> None:
    """Refuse a cell that can't be repeated in space; cell vectors of non-periodic directions may be zero.

    Raises:
        ValueError: the cell has NaN or infinite numbers, or its periodic vectors have no length or lie in one plane.
    """
    cell = np.asarray(atoms.cell)
    if not np.isfinite(cell).all():
        raise ValueError(f"the cell of {atoms.get_chemical_formula()} holds NaN or infinite numbers")
    periodic = cell[atoms.pbc]
    lengths = np.linalg.norm(periodic, axis=1)
    if not (lengths > 0).all():
        raise ValueError(f"{atoms.get_chemical_formula()} is periodic along a cell vector that has no length")
    if len(periodic) and np.linalg.svd(periodic / lengths[:, None], compute_uv=False).min() < FLATTEST_CELL:
        raise ValueError(
            f"the cell of {atoms.get_chemical_formula()} has no volume: its periodic vectors lie in one plane or line"
        )


def check_period(atoms: Atoms) -> None:
    """Refuse a cell so small that an atom collides with its own image.

    Raises:
        ValueError: a lattice vector is shorter than `SHORTEST_PERIOD_ANG`.
    """
    if not atoms.pbc.any():
        return
    shortest = float(np.linalg.norm(_reduced(atoms)[atoms.pbc], axis=1).min())
    if shortest < SHORTEST_PERIOD_ANG:
        raise ValueError(
            f"its cell repeats every atom after {shortest:.3g} Å; at least {SHORTEST_PERIOD_ANG} Å are needed. If the "
            "cell in the file has no meaning, leave it out or set pbc to F F F"
        )


def check_neighbors(atoms: Atoms, radius: float) -> None:
    """Refuse a structure whose neighbour list does not fit into this machine's memory.

    Args:
        atoms: a structure with a cell that `check_cell` accepts.
        radius: sum of cutoff and skin, Å.

    Raises:
        ValueError: there are too many images of the cell within the radius, or too many pairs. The message says how
            many.
    """
    n_images, density = 1.0, DENSEST_PER_ANG3
    if atoms.pbc.any():
        cell = complete_cell(np.asarray(atoms.cell) * atoms.pbc[:, None])
        heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
        n_images = float(np.prod(np.where(atoms.pbc, 2 * np.floor(radius / heights + 0.5) + 1, 1.0)))
        if atoms.pbc.all():
            density = len(atoms) / float(abs(np.linalg.det(cell)))
    if n_images > MAX_IMAGES:
        raise ValueError(
            f"a neighbour list within {radius:g} Å would search {n_images:.3g} images of the cell of "
            f"{atoms.get_chemical_formula()}; at most {MAX_IMAGES} are searched. Are the cell vectors in Å?"
        )
    n_neighbors = min(len(atoms) * n_images, 4 / 3 * math.pi * radius**3 * density + 1)
    needed, available = BYTES_PER_PAIR * len(atoms) * n_neighbors, psutil.virtual_memory().total
    if needed > available:
        raise ValueError(
            f"the neighbours of {len(atoms)} atoms within {radius:g} Å would take {needed / 2**30:.0f} GiB, and this "
            f"machine has {available / 2**30:.0f} GiB"
        )


def check_apart(atoms: Atoms) -> None:
    """Refuse two atoms at the same place, periodic images included; takes O(n log n) time and O(n) memory.

    Raises:
        ValueError: two atoms are nearer than `COINCIDENT_ANG`. The message names them and their distance.
    """
    positions, owner = _with_images(atoms)
    order = np.lexsort(positions.T)
    same = np.flatnonzero((np.diff(positions[order], axis=0) == 0).all(axis=1))
    if len(same):
        pair, distance = owner[order[same[0] : same[0] + 2]], 0.0
    else:
        distances, nearest = cKDTree(positions).query(positions, k=2, distance_upper_bound=COINCIDENT_ANG)
        first = int(distances[:, 1].argmin())
        distance = float(distances[first, 1])
        if not math.isfinite(distance):
            return
        pair = owner[[first, nearest[first, 1]]]
    raise ValueError(
        f"atoms {min(pair)} and {max(pair)} are {distance:.3f} Å apart; at least {COINCIDENT_ANG} Å are needed"
    )


def check_all_apart(dataset: Dataset) -> None:
    """Refuse two atoms of one structure at the same place, in all structures of a dataset at once.

    Raises:
        ValueError: two atoms are nearer than `COINCIDENT_ANG`. The message names the structure, the atoms and their
            distance.
    """
    structure = np.repeat(np.arange(len(dataset)), dataset.counts)
    apart = np.ptp(dataset.positions[:, 0]) + 1.0  # so far that structures do not meet
    positions = dataset.positions + np.outer(structure, [apart, 0.0, 0.0])
    distances, nearest = cKDTree(positions).query(positions, k=2, distance_upper_bound=COINCIDENT_ANG)
    near = np.flatnonzero(np.isfinite(distances[:, 1]))
    if len(near) == 0:
        return
    first, number = int(near[0]), int(structure[near[0]])
    other = int(nearest[first][nearest[first] != first][0])
    pair = sorted(index - int(dataset.starts[number]) for index in (first, other))
    raise ValueError(
        f"in structure {number} ({dataset.names[number]}) atoms {pair[0]} and {pair[1]} are "
        f"{distances[first, 1]:.3f} Å apart; at least {COINCIDENT_ANG} Å are needed"
    )


def _with_images(atoms: Atoms) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return positions inside the cell, with images of atoms near its lower faces, and the atom of each position."""
    positions, owner = np.asarray(atoms.positions, dtype=np.float64), np.arange(len(atoms))
    if not atoms.pbc.any():
        return positions, owner
    cell = complete_cell(_reduced(atoms))
    inverse = np.linalg.inv(cell)
    fractions = positions @ inverse
    fractions -= np.where(atoms.pbc, np.floor(fractions), 0.0)
    margin = COINCIDENT_ANG * np.linalg.norm(inverse, axis=0)
    for axis in np.flatnonzero(atoms.pbc):
        low = np.flatnonzero(fractions[:, axis] < margin[axis])
        fractions = np.concatenate([fractions, fractions[low] + np.eye(3)[axis]])
        owner = np.concatenate([owner, owner[low]])
    return fractions @ cell, owner


def _reduced(atoms: Atoms) -> Array:
    """Return the shortest vectors of the same lattice; vectors of non-periodic directions are zero."""
    cell: Array = minkowski_reduce(np.asarray(atoms.cell) * atoms.pbc[:, None], atoms.pbc)[0]
    return cell


def _few(values: npt.NDArray[np.integer]) -> str:
    return ", ".join(str(value) for value in values[:10].tolist()) + (", …" if len(values) > 10 else "")
