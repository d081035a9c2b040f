"""Velocity Verlet by ASE on any engine: what our own integrator is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

from mlff_exp.dynamics.state import MDState
from mlff_exp.engines import Engine, EngineCalculator


def ase_steps(engine: Engine, systems: Sequence[Atoms], timestep_fs: float) -> Callable[[MDState, int], None]:
    """What does steps of a state in place: each system by itself, through ASE and back.

    Args:
        engine: gives energies and forces.
        systems: as in the state; they are not changed.
        timestep_fs: of velocity Verlet.
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
