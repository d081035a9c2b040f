"""Relax a structure to a minimum of a force field near it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms
from ase.optimize import FIRE, LBFGS
from ase.optimize.optimize import Optimizer

from mlff_exp.engines import Engine, EngineCalculator
from mlff_exp.structures import collate

RELAXED_EV_PER_ANG = 0.01
MAX_STEPS = 500
MAX_SADDLES = 4  # after so many saddles the search for a minimum is given up
FLAT_EV_PER_ANG2 = 0.02  # a curvature nearer to zero counts as zero
SADDLE_EV_PER_ANG2 = 0.1  # a curvature below minus this is a saddle even if neither side lies lower
LOWER_EV = 1e-3  # another minimum lies lower by more than this
UPHILL_EV = 1e-4
AWAY_ANG = 0.2  # displacement from a saddle, of the atom that moves most
DIFFERENCE_ANG = 0.01  # displacement for curvatures, of the atom that moves most
MAX_ATOMS_OF_HESSIAN = 32
LANCZOS_STEPS = 40
SLOTS_AT_ONCE = {"cpu": 64, "cuda": 8192}  # more do not fit into a CPU's cache

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Minimum:
    """The end of a relaxation.

    Attributes:
        atoms: the relaxed structure.
        energy: its potential energy, eV.
        faults: the reasons why the structure is no minimum; empty for a minimum.
    """

    atoms: Atoms
    energy: float
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Point:
    atoms: Atoms
    energy: float
    residual: float  # largest force, eV/Å

    @property
    def relaxed(self) -> bool:
        """Whether the largest force is small enough; False if it is NaN."""
        return self.residual <= RELAXED_EV_PER_ANG


def find_minimum(atoms: Atoms, reference: Engine, rng: np.random.Generator) -> Minimum:
    """Relax a structure; at a saddle, follow the softest mode in both directions and go on from the lower side.

    A structure with a symmetry that the minimum lacks, such as flat ammonia, relaxes to a saddle. No force leads away
    from a saddle, and its energy is too high.

    Args:
        atoms: the structure, which is not changed.
        reference: engine in FP64.
        rng: draws the vector with which the search for the softest mode of a large system begins.

    Returns:
        The structure, its energy, and the faults that it has as a minimum.
    """
    begin = _point(atoms, reference)
    point = _relaxed(atoms, reference)
    curvature, left = 0.0, 0
    while point.relaxed:
        curvature, mode = softest_mode(point.atoms, reference, rng)
        if curvature >= -FLAT_EV_PER_ANG2 or left == MAX_SADDLES:
            break
        sides = [_relaxed(_moved(point.atoms, way * AWAY_ANG * mode), reference) for way in (1, -1)]
        lower = min(sides, key=lambda side: side.energy)
        if not lower.energy < point.energy - LOWER_EV:
            break
        point, left = lower, left + 1
    faults = []
    if not point.relaxed:
        faults.append(f"does not relax: {point.residual:.2g} eV/Å are left, allowed is ≤ {RELAXED_EV_PER_ANG:g}")
    elif curvature < -SADDLE_EV_PER_ANG2 or (left == MAX_SADDLES and curvature < -FLAT_EV_PER_ANG2):
        faults.append(
            f"does not relax to a minimum: after {left} saddles the lowest curvature is {curvature:.2g} eV/Å²"
        )
    if not point.energy <= begin.energy + UPHILL_EV:
        faults.append(
            f"relaxes uphill: its energy ends {point.energy - begin.energy:.3g} eV above the start, as where the "
            "forces are not minus the gradient of the energy"
        )
    return Minimum(point.atoms, point.energy, tuple(faults))


def softest_mode(atoms: Atoms, reference: Engine, rng: np.random.Generator) -> tuple[float, Array]:
    """Find the lowest curvature of the energy and its direction, by central differences of the forces.

    For small systems the complete Hessian is computed. For large ones Lanczos' method (J. Res. Natl. Bur. Stand. 45,
    255 (1950)) finds an upper bound, which is close where the curvature is clearly negative.

    Args:
        atoms: the structure.
        reference: engine in FP64.
        rng: draws the first vector of Lanczos' method.

    Returns:
        The curvature, eV/Å², at most 0, which is that of a translation; and its direction, [n_atoms, 3], in which the
        atom that moves most moves by 1.
    """
    rigid = _rigid_motions(atoms)

    def inward(vectors: Array) -> Array:
        """Remove translations and rotations from vectors [n, 3 n_atoms]."""
        inside: Array = vectors - (vectors @ rigid.T) @ rigid
        return inside

    def applied(vectors: Array) -> Array:
        return inward(_hessian_times(inward(vectors), atoms, reference))

    size = 3 * len(atoms)
    if len(atoms) <= MAX_ATOMS_OF_HESSIAN:
        hessian = applied(np.eye(size))
        curvatures, modes = np.linalg.eigh((hessian + hessian.T) / 2)
        curvature, mode = float(curvatures[0]), modes[:, 0]
    else:
        curvature, mode = _lanczos(applied, inward(rng.normal(size=(1, size)))[0])
    shape = mode.reshape(-1, 3)
    return min(curvature, 0.0), shape / np.linalg.norm(shape, axis=1).max()


def _lanczos(applied: Callable[[Array], Array], begin: Array) -> tuple[float, Array]:
    """Return the lowest Ritz value and its vector, [n]."""
    basis = [begin / np.linalg.norm(begin)]
    images: list[Array] = []
    while True:
        image = applied(basis[-1][None])[0]
        images.append(image)
        rest = image.copy()
        for _ in range(2):  # once is not enough for vectors that stay orthogonal
            for vector in basis:
                rest -= (vector @ rest) * vector
        length = float(np.linalg.norm(rest))
        if len(images) == LANCZOS_STEPS or not length > 1e-6 * np.linalg.norm(image):
            break
        basis.append(rest / length)
    projected = np.array(basis) @ np.array(images).T
    values, vectors = np.linalg.eigh((projected + projected.T) / 2)
    return float(values[0]), vectors[:, 0] @ np.array(basis)


def _hessian_times(vectors: Array, atoms: Atoms, reference: Engine) -> Array:
    """Multiply the Hessian with vectors [n, 3 n_atoms]; returns [n, 3 n_atoms] eV/Å²."""
    n_atoms, found = len(atoms), np.zeros_like(vectors)
    moves = vectors.reshape(len(vectors), n_atoms, 3)
    largest = np.linalg.norm(moves, axis=2).max(axis=1)
    asked = np.flatnonzero(largest > 0)
    at_once = max(1, SLOTS_AT_ONCE[reference.device.type] // (2 * n_atoms))
    for part in np.array_split(asked, -(-len(asked) // at_once)) if len(asked) else ():
        steps = DIFFERENCE_ANG / largest[part]
        displaced = steps[:, None, None] * moves[part]
        batch = collate(
            [atoms] * (2 * len(part)),
            reference.cutoff,
            near=reference.shorter_cutoffs,
            skin=4 * DIFFERENCE_ANG,
            device=reference.device,
        )
        away = batch.per_system(torch.zeros_like(batch.positions))
        away[:, :n_atoms] = torch.from_numpy(np.concatenate([displaced, -displaced])).to(away.device)
        prediction = reference(batch.with_positions(batch.positions + away.flatten(0, 1)))
        plus, minus = batch.per_system(prediction.forces)[:, :n_atoms].cpu().numpy().reshape(2, len(part), -1)
        found[part] = (minus - plus) / (2 * steps[:, None])
    return found


def _rigid_motions(atoms: Atoms) -> Array:
    """Return orthonormal translations and, unless the structure is periodic, rotations, [n, 3 n_atoms]."""
    moves = [np.tile(axis, (len(atoms), 1)) for axis in np.eye(3)]
    if not atoms.pbc.any():
        arms = atoms.positions - atoms.positions.mean(axis=0)
        moves += [np.cross(axis, arms) for axis in np.eye(3)]
    _, sizes, axes = np.linalg.svd(np.array(moves).reshape(len(moves), -1), full_matrices=False)
    kept: Array = axes[sizes > 1e-6 * sizes[0]]  # a linear molecule does not turn about its axis
    return kept


def _relaxed(atoms: Atoms, reference: Engine) -> _Point:
    """Relax by LBFGS, which is fast but may go uphill far from a minimum. If it went uphill, relax by FIRE instead."""
    begin = _point(atoms, reference)
    found = _optimised(atoms, reference, lambda moving: LBFGS(moving, logfile=None))
    if not found.energy <= begin.energy + UPHILL_EV:
        found = _optimised(atoms, reference, lambda moving: FIRE(moving, logfile=None, downhill_check=True))
    return found


def _optimised(atoms: Atoms, reference: Engine, made: Callable[[Atoms], Optimizer]) -> _Point:
    moving = atoms.copy()
    moving.calc = EngineCalculator(reference)
    for _ in made(moving).irun(fmax=RELAXED_EV_PER_ANG, steps=MAX_STEPS):
        if not np.isfinite(moving.get_forces()).all():
            break
    energy, forces = float(moving.get_potential_energy()), moving.get_forces()
    moving.calc = None
    return _Point(moving, energy, float(np.linalg.norm(forces, axis=1).max()))


def _point(atoms: Atoms, reference: Engine) -> _Point:
    prediction = reference(collate([atoms], reference.cutoff, near=reference.shorter_cutoffs, device=reference.device))
    return _Point(atoms, float(prediction.energy), float(prediction.forces.norm(dim=-1).max()))


def _moved(atoms: Atoms, away: Array) -> Atoms:
    moved = atoms.copy()
    moved.positions += away
    return moved
