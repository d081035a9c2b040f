"""What a force field has to satisfy whatever its trajectory: forces that are a gradient, and a smooth one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms

from mlff_exp.dynamics.recording import Trajectory
from mlff_exp.dynamics.state import FloatArray, MDState
from mlff_exp.dynamics.verlet import Dynamics
from mlff_exp.engines import Engine
from mlff_exp.measure import detrended_std, linear_slope, slope_errors
from mlff_exp.results import Estimate
from mlff_exp.structures import collate, rebuild_neighbors, uses_all_pairs

DIFFERENCE_STEP_ANG = 1e-3
MAX_DIFFERENCED_COORDINATES = 36
MAX_TEACHER_FRAMES = 200
PROBE_FS = 100.0  # of the trajectories that compare timesteps: many periods of the fastest vibration
REVERSED_STEPS = 200
SLOTS_AT_ONCE = 8192
UNBOUND_EV_PER_ANG = 1e-6  # of an atom 0.05 Å off its place; atoms of a noble gas feel a thousand times as much


def finite_difference_error(reference: Engine, atoms: Atoms, rng: np.random.Generator) -> float:
    """Largest difference of forces and central differences of the energy, eV/Å, off the geometry given.

    Args:
        reference: FP64.
        atoms: near a minimum; looked at after a random displacement.
        rng: of the displacement, and of the coordinates if there are many.
    """
    start = atoms.copy()
    start.positions += rng.normal(scale=0.05, size=start.positions.shape)
    chosen = rng.permutation(3 * len(start))[:MAX_DIFFERENCED_COORDINATES]
    errors = []
    for part in np.array_split(chosen, min(len(chosen), -(-len(chosen) * len(start) // SLOTS_AT_ONCE))):
        batch = collate([start] * len(part), reference.cutoff, device=reference.device)
        directions = torch.zeros(len(part), 3 * len(start), dtype=torch.float64, device=reference.device)
        directions[torch.arange(len(part)), torch.from_numpy(part)] = 1
        errors.append(float(slope_errors(reference, batch, directions.view(-1, 3), DIFFERENCE_STEP_ANG).max()))
    return max(errors)


def unbound_atoms(atoms: Atoms, reference: Engine, rng: np.random.Generator) -> list[int]:
    """Atoms that feel no force even off the geometry given: their motion says nothing of a force field.

    Args:
        atoms: near a minimum; looked at after a random displacement.
        reference: FP64.
        rng: of the displacement.
    """
    moved = atoms.copy()
    moved.positions += rng.normal(scale=0.05, size=moved.positions.shape)
    if not np.isfinite(moved.positions).all():
        return []
    batch = collate([moved], reference.cutoff, device=reference.device)
    forces = reference(batch).forces.norm(dim=-1)[: len(atoms)]
    unbound: list[int] = (forces < UNBOUND_EV_PER_ANG).nonzero().flatten().tolist()
    return unbound


def fluctuation_ratio_dt(reference: Engine, dynamics: Dynamics, state: MDState, system: int = 0) -> float:
    """Fluctuation of a system's total energy at the timestep over that at half of it, from one start.

    Velocity Verlet conserves a shadow energy that is off by the square of the timestep, so that 4 is right for a
    smooth force field; less says that something else than the timestep moves the energy. NaN if nothing moves it.
    """
    fluctuation = []
    for timestep_fs in (dynamics.timestep_fs, dynamics.timestep_fs / 2):
        alone, start = _alone(reference, dynamics, state, system, timestep_fs)
        trajectory = alone.run(start, round(PROBE_FS / timestep_fs), 1)
        total = (trajectory.potential + trajectory.kinetic)[:, 0]
        fluctuation.append(detrended_std(trajectory.times_ps, total))
    return fluctuation[0] / fluctuation[1] if fluctuation[1] > 0 else math.nan


def time_reversal_error(reference: Engine, dynamics: Dynamics, state: MDState, system: int = 0) -> float:
    """How far a system's atoms end from where they began, Å, after so many steps forth and back."""
    alone, start = _alone(reference, dynamics, state, system, dynamics.timestep_fs)
    began = start.positions.clone()
    alone.run(start, REVERSED_STEPS, REVERSED_STEPS)
    start.velocities = -start.velocities
    alone.run(start, REVERSED_STEPS, REVERSED_STEPS)
    return float((start.positions - began).norm(dim=-1).max())


def _alone(
    reference: Engine, dynamics: Dynamics, state: MDState, system: int, timestep_fs: float
) -> tuple[Dynamics, MDState]:
    atoms, per_system = dynamics.systems[system], dynamics.batch.per_system
    alone = Dynamics(reference, [atoms.copy()], timestep_fs)
    positions, velocities = (per_system(each)[system, : len(atoms)] for each in (state.positions, state.velocities))
    return alone, alone.state(positions, velocities)


def potential_along(reference: Engine, dynamics: Dynamics, trajectory: Trajectory) -> FloatArray:
    """Potential energy of every recorded frame anew, [n_records, n_systems] eV.

    What an engine of low precision says of its own energy is noisy; what it did to the energy is in the frames.
    """
    systems = dynamics.systems
    n_records, _, n_slots, _ = trajectory.positions.shape
    n_frames = min(max(1, SLOTS_AT_ONCE // (len(systems) * n_slots)), n_records)
    batch = collate(systems * n_frames, reference.cutoff, device=reference.device)
    listed = [not uses_all_pairs(atoms) for atoms in systems * n_frames]
    energies = []
    for first in range(0, len(trajectory.positions), n_frames):
        frames = trajectory.positions[first : first + n_frames]
        # The last batch is filled up, so that all of them have one shape.
        filled = np.concatenate([frames, np.repeat(frames[-1:], n_frames - len(frames), axis=0)])
        batch = batch.with_positions(torch.from_numpy(filled.reshape(-1, 3)).to(reference.device))
        if any(listed):
            batch = rebuild_neighbors(batch, listed, reference.cutoff)
        energies.append(reference(batch).energy.view(n_frames, len(systems))[: len(frames)].cpu().numpy())
    return np.concatenate(energies)


def teacher_drift(teacher: Engine, dynamics: Dynamics, trajectory: Trajectory) -> list[Estimate]:
    """Trend of V_teacher + K along every trajectory, meV/atom/ps.

    Where the student's energy is conserved and this is not, the student takes the atoms to where the two disagree.

    Args:
        teacher: looked at on some 200 frames.
        dynamics: of the student.
        trajectory: of the student.
    """
    thin = slice(None, None, -(-len(trajectory.steps) // MAX_TEACHER_FRAMES))
    frames = replace(trajectory, positions=trajectory.positions[thin])
    total = potential_along(teacher, dynamics, frames) + trajectory.kinetic[thin]
    return [
        linear_slope(trajectory.times_ps[thin], 1000 * total[:, index] / len(atoms))
        for index, atoms in enumerate(dynamics.systems)
    ]
