"""Where the kinetic energy of recorded trajectories is."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from mlff_exp.dynamics.bonds import find_bonds
from mlff_exp.dynamics.recording import Trajectory
from mlff_exp.measure import internal_degrees_of_freedom, motion_metrics, motion_of_start

HYDROGEN = 1


def motion_along(trajectory: Trajectory, first: int, n_starts: int, atoms: Atoms) -> dict[str, float]:
    """Metrics of centre of mass, rotation and equipartition of the starts of one system; none if a start has no energy.

    Groups are the elements, if there are several, and the stretching of all bonds of hydrogen to another element.

    Args:
        trajectory: what was recorded of all systems.
        first: index of the system's first start.
        n_starts: how many starts it has.
        atoms: the system at its minimum.
    """
    part = np.s_[:, first : first + n_starts, : len(atoms)]
    positions, velocities = trajectory.positions[part], trajectory.velocities[part]
    finite = np.isfinite(positions).all(axis=(1, 2, 3)) & np.isfinite(velocities).all(axis=(1, 2, 3))
    if not finite.any():
        return {}
    n_rotations = 3 * len(atoms) - 3 - internal_degrees_of_freedom(atoms.positions, atoms.pbc)
    symbols = np.array(atoms.get_chemical_symbols())
    elements = list(dict.fromkeys(symbols)) if len(set(symbols)) > 1 else []
    groups = [np.flatnonzero(symbols == element) for element in elements]
    bonds = find_bonds(atoms)
    of_hydrogen = (atoms.numbers[bonds.first] == HYDROGEN) != (atoms.numbers[bonds.second] == HYDROGEN)
    stretches = bonds.first[of_hydrogen], bonds.second[of_hydrogen], bonds.shifts[of_hydrogen]
    motions = [
        motion_of_start(
            positions[finite, start], velocities[finite, start], atoms.get_masses(), n_rotations, groups, stretches
        )
        for start in range(n_starts)
    ]
    names = [f"element/{element}" for element in elements] + ["stretch/XH"] * bool(of_hydrogen.any())
    return motion_metrics(motions, names)
