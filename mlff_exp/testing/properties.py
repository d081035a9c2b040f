"""The properties of a force field, each a function that says by how much it is violated.

A property is tried in FP64. It holds if it is violated by no more than the rounding of the model explains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms
from scipy.spatial.transform import Rotation

from mlff_exp.measure import (
    LARGEST_GRADIENT_ERROR_EV_PER_ANG,
    LARGEST_MOVE_ANG,
    STRAIN_ERROR_GPA,
    energy_rounding,
    gradient_errors,
    random_directions,
    random_strain,
    strain_errors,
)
from mlff_exp.testing.subject import Array, Subject

EV, EV_PER_ANG = "eV", "eV/Å"
SKIN_ANG = 1.0
N_PADDING = 5  # rows
N_DIRECTIONS = 4
CROSSING_ANG = 1e-4  # half of the way on which an atom crosses the cutoff
MOST_AROUND = 32  # atoms of the structure that another atom approaches


@dataclass(frozen=True)
class Violation:
    """By how much a property is violated.

    Attributes:
        value: the difference that is largest in units of its limit.
        limit: the largest that is allowed.
        unit: of both.
        how: what was done to the structure.
    """

    value: float
    limit: float
    unit: str
    how: str

    @property
    def holds(self) -> bool:
        """Whether the difference is within its limit; NaN is not."""
        return bool(self.value <= self.limit)


class InapplicableError(Exception):
    """A property has no meaning for a force field or a structure; the message says why."""


Outcomes = Iterable[tuple[float, Array]]
Order = npt.NDArray[np.integer[Any]]
Transformed = tuple[Atoms, Array, Order, str]  # the structure, the matrix of a turn, the order of atoms, words
Transform = Callable[[Atoms, np.random.Generator], Transformed]


@dataclass(frozen=True)
class Property:
    """A property of a force field.

    Attributes:
        name: one word or two.
        meaning: what holds, in one line.
        measure: returns by how much it is violated for each structure of a `Subject` on which it has a meaning.
    """

    name: str
    meaning: str
    measure: Callable[[Subject], list[Violation]]


def rotation(subject: Subject) -> list[Violation]:
    """Turn each structure, with its cell."""
    return _transformed(subject, lambda atoms, rng: _turned(atoms, Rotation.random(rng=rng).as_matrix(), "turned"))


def reflection(subject: Subject) -> list[Violation]:
    """Mirror each structure, with its cell."""
    return _transformed(subject, lambda atoms, rng: _turned(atoms, _mirror(rng), "mirrored"))


def translation(subject: Subject) -> list[Violation]:
    """Move each structure, and in a cell each atom to another image of it."""

    def moved(atoms: Atoms, rng: np.random.Generator) -> Transformed:
        other, shift = atoms.copy(), rng.normal(scale=3.0, size=3)
        images = rng.integers(-1, 2, size=(len(atoms), 3)) * atoms.pbc
        other.positions += shift + images @ atoms.cell[:]
        how = f"moved by {_shown(shift)} Å" + (f", atoms to their images {images.tolist()}" if images.any() else "")
        return other, np.eye(3), np.arange(len(atoms)), how

    return _transformed(subject, moved)


def permutation(subject: Subject) -> list[Violation]:
    """List the atoms of each structure in another order."""

    def renumbered(atoms: Atoms, rng: np.random.Generator) -> Transformed:
        order = rng.permutation(len(atoms))
        return atoms[order], np.eye(3), order, f"atoms in the order {order.tolist()}"

    return _transformed(subject, renumbered)


def extensivity(subject: Subject) -> list[Violation]:
    """Repeat a cell, or put a copy of a molecule far away."""
    found = []
    for atoms in subject.structures:
        if atoms.pbc.any():
            times = [1 + (axis == int(np.argmax(atoms.pbc))) for axis in range(3)]
            both, how = atoms.repeat(times), f"repeated {times} times"
        else:
            away = 2 * subject.engine.cutoff + float(np.ptp(atoms.positions[:, 0]))
            other = atoms.copy()
            other.positions[:, 0] += away
            both, how = atoms + other, f"with a copy of itself {away:.1f} Å away"
        ((energy, forces),) = subject.evaluate(atoms)
        expected = 2 * energy, np.concatenate([forces, forces])
        found.append(_difference(subject, subject.evaluate(both), [expected], how, n_copies=2))
    return found


def padding(subject: Subject) -> list[Violation]:
    """Add rows without atoms, on which there must be no force at all."""
    found = []
    for atoms in subject.structures:
        batch = subject.batch([atoms], n_slots=len(atoms) + N_PADDING)
        prediction, how = subject.engine(batch), f"with {batch.n_slots - len(atoms)} rows of padding"
        on_padding = prediction.forces[~batch.is_atom].abs()
        found.append(Violation(_largest(on_padding.cpu().numpy()), 0.0, EV_PER_ANG, f"{how}, which feel a force"))
        forces = batch.per_system(prediction.forces)[0, : len(atoms)].cpu().numpy()
        found.append(_difference(subject, [(float(prediction.energy[0]), forces)], subject.evaluate(atoms), how))
    return found


def skin(subject: Subject) -> list[Violation]:
    """Evaluate with a neighbour list that also holds pairs beyond the cutoff."""
    found = []
    for atoms in (one for one in subject.structures if one.pbc.any()):
        how = f"with a skin of {SKIN_ANG:g} Å"
        found.append(_difference(subject, subject.evaluate(atoms, skin=SKIN_ANG), subject.evaluate(atoms), how))
    if not found:
        raise InapplicableError("it takes no periodic systems, and a molecule has all pairs in its list")
    return found


def batch(subject: Subject) -> list[Violation]:
    """Evaluate all structures in one batch, beside a larger one."""
    first = subject.structures[0]
    together = [*subject.structures, first.repeat((2, 1, 1)) if first.pbc.any() else first[: max(1, len(first) // 2)]]
    alone = [subject.evaluate(atoms)[0] for atoms in together]
    return [_difference(subject, subject.evaluate(*together), alone, f"in one batch of {len(together)} systems")]


def forces(subject: Subject) -> list[Violation]:
    """Compare the force along random directions with differences of the energy."""
    found = []
    for atoms in subject.structures:
        batch = subject.batch([atoms] * N_DIRECTIONS, skin=2 * LARGEST_MOVE_ANG)
        along = random_directions(batch, subject.seed)
        errors = gradient_errors(subject.engine, batch, along, energy_rounding(subject.engine, batch, along))
        how = f"along {N_DIRECTIONS} random directions of all coordinates"
        found.append(Violation(_largest(errors.cpu().numpy()), LARGEST_GRADIENT_ERROR_EV_PER_ANG, EV_PER_ANG, how))
    return found


def stress(subject: Subject) -> list[Violation]:
    """Compare the stress along a random strain with differences of the energy."""
    if subject.own_forces:
        raise InapplicableError("a force field with forces of its own gives no stress")
    found = []
    for atoms in (one for one in subject.structures if one.pbc.all()):
        strain = random_strain(subject.seed)
        # A strain this small moves no pair by more than the skin.
        batch = subject.batch([atoms], skin=2 * LARGEST_MOVE_ANG)
        error = float(strain_errors(subject.engine, batch, strain).max())
        how = f"along the strain {_shown(strain.numpy())}"
        found.append(Violation(error, STRAIN_ERROR_GPA, "GPa", how))
    if not found:
        raise InapplicableError("no structure is periodic in all three directions")
    return found


def smoothness(subject: Subject) -> list[Violation]:
    """Let another atom cross the cutoff to the outermost atom of each structure.

    A jump is what remains of a difference over a way when the way becomes zero: twice the difference over half of the
    way less that over the whole way, which leaves out the slope.
    """
    found = []
    for atoms in subject.structures:
        rng, cluster = subject.rng, Atoms(atoms.numbers[:MOST_AROUND], atoms.positions[:MOST_AROUND])
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        outermost = int(np.argmax(cluster.positions @ direction))  # no other atom is as near to the one that comes
        for cutoff in sorted({subject.engine.cutoff, *subject.engine.shorter_cutoffs}):

            def at(distance: float, cluster: Atoms = cluster, to: Array = cluster.positions[outermost]) -> Atoms:
                return cluster + Atoms(cluster.symbols[:1], [to + distance * direction])  # noqa: B023

            far, near = (_jump(subject, at(cutoff + way), at(cutoff - way)) for way in (CROSSING_ANG, CROSSING_ANG / 2))
            energy, forces = 2 * near[0] - far[0], 2 * near[1] - far[1]
            symbols = f"{cluster.symbols[0]} and {cluster.symbols[outermost]}"
            nothing = 0.0, np.zeros_like(forces)
            found.append(_difference(subject, [(energy, forces)], [nothing], f"{symbols} cross {cutoff:g} Å"))
    return found


PROPERTIES = {
    one.name: one
    for one in (
        Property("rotation", "forces turn with the structure, the energy stays", rotation),
        Property("reflection", "forces are mirrored with the structure, the energy stays", reflection),
        Property("translation", "energy and forces stay", translation),
        Property("permutation", "forces are renumbered with the atoms, the energy stays", permutation),
        Property("extensivity", "two copies have twice the energy", extensivity),
        Property("padding", "rows without atoms change nothing and feel nothing", padding),
        Property("skin", "pairs of the list beyond the cutoff change nothing", skin),
        Property("batch", "a system in a batch is as by itself", batch),
        Property("smoothness", "energy and forces do not jump where a pair crosses the cutoff", smoothness),
        Property("forces", "forces are minus the gradient of the energy", forces),
        Property("stress", "the stress is the derivative of the energy by strain", stress),
    )
}


def _transformed(subject: Subject, transform: Transform) -> list[Violation]:
    """Compare each structure with itself transformed; forces turn, and are renumbered, with the atoms."""
    found = []
    for atoms in subject.structures:
        other, turn, order, how = transform(atoms, subject.rng)
        ((energy, forces),) = subject.evaluate(atoms)
        expected = energy, forces[order] @ turn.T
        found.append(_difference(subject, subject.evaluate(other), [expected], how))
    return found


def _jump(subject: Subject, one: Atoms, other: Atoms) -> tuple[float, Array]:
    """The differences of energy and forces between two structures."""
    ((energy, forces),), ((other_energy, other_forces),) = subject.evaluate(one), subject.evaluate(other)
    return energy - other_energy, forces - other_forces


def _turned(atoms: Atoms, turn: Array, word: str) -> Transformed:
    other = atoms.copy()
    other.positions = atoms.positions @ turn.T
    other.set_cell(atoms.cell[:] @ turn.T)
    return other, turn, np.arange(len(atoms)), f"{word} by the matrix {_shown(turn)}"


def _mirror(rng: np.random.Generator) -> Array:
    """Reflect at a random plane: 1 − 2 n ⊗ n."""
    normal = rng.normal(size=3)
    normal /= np.linalg.norm(normal)
    matrix: Array = np.eye(3) - 2 * np.outer(normal, normal)
    return matrix


def _difference(subject: Subject, found: Outcomes, expected: Outcomes, how: str, n_copies: int = 1) -> Violation:
    """The larger of the differences of energies and of forces, in units of what rounding explains."""
    energies, forces = [], []
    for (energy, force), (other, other_force) in zip(found, expected, strict=True):
        energies.append(abs(energy - other))
        forces.append(_largest(force - other_force))
    limits = n_copies * subject.tolerance.energy_ev, subject.tolerance.force_ev_per_ang
    both = Violation(_most(energies), limits[0], EV, how), Violation(_most(forces), limits[1], EV_PER_ANG, how)
    return max(both, key=severity)


def severity(violation: Violation) -> float:
    """How many times the limit a violation is; infinite for NaN, and where nothing is allowed."""
    if violation.limit == 0:
        return 0.0 if violation.value == 0 else float("inf")
    return float(np.nan_to_num(violation.value / violation.limit, nan=np.inf))


def _largest(values: Array) -> float:
    return float(np.abs(values).max()) if values.size else 0.0


def _most(values: list[float]) -> float:
    return float(np.max(values))  # NaN if one is


def _shown(numbers: Array) -> str:
    return str(np.round(numbers, 4).tolist())
