"""Velocity Verlet by ASE on any engine, with which our own integrator is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

from mlff_exp.dynamics.state import MDState
from mlff_exp.engines import Engine, EngineCalculator


def ase_steps(engine: Engine, systems: Sequence[Atoms], timestep_fs: float) -> Callable[[MDState, int], None]:
    """Make a function that does steps of a state in place, one system after the other, by ASE.

    Args:
        engine: gives energies and forces.
        systems: the structures in the order of the state; they are not changed.
        timestep_fs: the timestep, fs.

    Returns:
        A function of a state and a number of steps.
    """
    moving = [atoms.copy() for atoms in systems]
    for atoms in moving:
        atoms.calc = EngineCalculator(engine)
    n_slots = max(len(atoms) for atoms in systems)

    def advance(state: MDState, n_steps: int) -> None:
        for index, atoms in enumerate(moving):
            part = slice(index * n_slots, index * n_slots + len(atoms))
            # ASE keeps the forces of positions that it has seen, so n steps cost n evaluations.
            atoms.positions = state.positions[part].cpu().numpy()
            atoms.set_velocities(state.velocities[part].cpu().numpy())
            VelocityVerlet(atoms, timestep_fs * units.fs).run(n_steps)
            for target, values in (
                (state.positions, atoms.positions),
                (state.velocities, atoms.get_velocities()),
                (state.forces, atoms.get_forces()),
            ):
                target[part] = torch.from_numpy(np.asarray(values)).to(target.device)
            state.energy[index] = atoms.get_potential_energy()

    return advance
