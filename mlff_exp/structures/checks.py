"""What no force field can evaluate, found before any work: broken cells, coinciding atoms, more than memory holds."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import psutil
from ase import Atoms
from ase.geometry import complete_cell, minkowski_reduce
from scipy.spatial import cKDTree

COINCIDENT_ANG = 0.1  # no pair of atoms that a force field was made for comes so near
SHORTEST_PERIOD_ANG = 1.2  # carbon atoms of a cumulene, the closest period of any chain, repeat after 1.28 Å
LARGEST_POSITION_ANG = 1e6  # beyond it differences of FP64 positions lose the digits that forces need
MAX_ATOMS = 1_000_000
MAX_IMAGES = 100_000  # of a cell, that a list of neighbours looks at for every pair
# Between two periodic vectors, or one and the plane of the others, as the sine of the angle.
FLATTEST_CELL = 1e-4
# Of a list of neighbours: index, reverse, mask and shift of a slot, and as much again while they are laid out.
BYTES_PER_PAIR = 100
DENSEST_PER_ANG3 = 0.2  # atoms, where the cell does not tell: diamond has 0.18

Array = npt.NDArray[np.float64]


def check_structure(atoms: Atoms) -> None:
    """Refuse what no force field can evaluate; cheap, for every batch.

    Raises:
        ValueError: no atoms or too many, atomic numbers that no element has, positions that are not finite or too far
            away, naming the atoms, or a cell that `check_cell` refuses.
    """
    if len(atoms) == 0:
        raise ValueError("empty structure: there are no atoms to evaluate")
    if len(atoms) > MAX_ATOMS:
        raise ValueError(f"{len(atoms)} atoms are more than the {MAX_ATOMS} that a structure may have")
    if atoms.numbers.min() < 1 or atoms.numbers.max() > 118:
        unknown = np.flatnonzero((atoms.numbers < 1) | (atoms.numbers > 118))
        raise ValueError(
            f"atoms {_few(unknown)} are of no element: their atomic numbers are {_few(atoms.numbers[unknown])}, "
            "and those of elements are 1 to 118"
        )
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(bad):
        raise ValueError(f"positions are NaN or infinite for atoms {_few(bad)} of {atoms.get_chemical_formula()}")
    far = np.flatnonzero((np.abs(atoms.positions) > LARGEST_POSITION_ANG).any(axis=1))
    if len(far):
        raise ValueError(f"positions are more than {LARGEST_POSITION_ANG:g} Å from the origin for atoms {_few(far)}")
    check_cell(atoms)


def check_cell(atoms: Atoms) -> None:
    """Refuse a cell that can't be repeated in space; vectors of directions that are not periodic may be zero.

    Raises:
        ValueError: numbers that are not finite, or periodic vectors without a length or in one plane.
    """
    cell = np.asarray(atoms.cell)
    if not np.isfinite(cell).all():
        raise ValueError(f"the cell of {atoms.get_chemical_formula()} holds NaN or infinite numbers")
    periodic = cell[atoms.pbc]
    lengths = np.linalg.norm(periodic, axis=1)
    if not (lengths > 0).all():
        raise ValueError(f"{atoms.get_chemical_formula()} is periodic along a vector of its cell that has no length")
    if len(periodic) and np.linalg.svd(periodic / lengths[:, None], compute_uv=False).min() < FLATTEST_CELL:
        raise ValueError(
            f"the cell of {atoms.get_chemical_formula()} has no volume: its periodic vectors lie in one plane or line"
        )


def check_period(atoms: Atoms) -> None:
    """Refuse a cell in which an atom meets its own image.

    Raises:
        ValueError: a period shorter than `SHORTEST_PERIOD_ANG`, along a vector of the cell or a sum of some.
    """
    if not atoms.pbc.any():
        return
    shortest = float(np.linalg.norm(_reduced(atoms)[atoms.pbc], axis=1).min())
    if shortest < SHORTEST_PERIOD_ANG:
        raise ValueError(
            f"its cell repeats every atom after {shortest:.3g} Å, and no crystal does before {SHORTEST_PERIOD_ANG} Å; "
            "if the cell only fills a place in the file, leave it out or set pbc to F F F"
        )


def check_neighbors(atoms: Atoms, radius: float) -> None:
    """Refuse a structure whose list of neighbours can't be made in this machine's memory.

    Args:
        atoms: with a cell that `check_cell` accepts.
        radius: Å, of the cutoff and the skin together.

    Raises:
        ValueError: too many images of the cell within the radius, or too many pairs, saying how many.
    """
    n_images, density = 1.0, DENSEST_PER_ANG3
    if atoms.pbc.any():
        whole = complete_cell(np.asarray(atoms.cell) * atoms.pbc[:, None])
        heights = 1 / np.linalg.norm(np.linalg.inv(whole), axis=0)
        n_images = float(np.prod(np.where(atoms.pbc, 2 * np.floor(radius / heights + 0.5) + 1, 1.0)))
        if atoms.pbc.all():
            density = len(atoms) / float(abs(np.linalg.det(whole)))
    if n_images > MAX_IMAGES:
        raise ValueError(
            f"a list of neighbours within {radius:g} Å would look at {n_images:.3g} images of the cell of "
            f"{atoms.get_chemical_formula()}, more than {MAX_IMAGES}: are its vectors in Å?"
        )
    around = min(len(atoms) * n_images, 4 / 3 * math.pi * radius**3 * density + 1)
    needed, there = BYTES_PER_PAIR * len(atoms) * around, psutil.virtual_memory().total
    if needed > there:
        raise ValueError(
            f"the neighbours of {len(atoms)} atoms within {radius:g} Å would take {needed / 2**30:.0f} GiB, and this "
            f"machine has {there / 2**30:.0f} GiB"
        )


def check_apart(atoms: Atoms) -> None:
    """Refuse atoms in one place, images in neighbouring cells included; in O(n log n) time and O(n) memory.

    Raises:
        ValueError: naming two atoms and their distance.
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
        f"atoms {min(pair)} and {max(pair)} are {distance:.3f} Å apart, which is nearer than {COINCIDENT_ANG} Å"
    )


def _with_images(atoms: Atoms) -> tuple[Array, npt.NDArray[np.int64]]:
    """Positions inside the cell with images of those at its lower faces, and which atom each one is of."""
    positions, owner = np.asarray(atoms.positions, dtype=np.float64), np.arange(len(atoms))
    if not atoms.pbc.any():
        return positions, owner
    whole = complete_cell(_reduced(atoms))
    inverse = np.linalg.inv(whole)
    fractions = positions @ inverse
    fractions -= np.where(atoms.pbc, np.floor(fractions), 0.0)
    margin = COINCIDENT_ANG * np.linalg.norm(inverse, axis=0)
    for axis in np.flatnonzero(atoms.pbc):
        low = np.flatnonzero(fractions[:, axis] < margin[axis])
        fractions = np.concatenate([fractions, fractions[low] + np.eye(3)[axis]])
        owner = np.concatenate([owner, owner[low]])
    return fractions @ whole, owner


def _reduced(atoms: Atoms) -> Array:
    """Vectors of the same lattice that are as short as can be; those of directions that are not periodic are zero."""
    cell: Array = minkowski_reduce(np.asarray(atoms.cell) * atoms.pbc[:, None], atoms.pbc)[0]
    return cell


def _few(values: npt.NDArray[np.integer]) -> str:
    return ", ".join(str(value) for value in values[:10].tolist()) + (", …" if len(values) > 10 else "")
