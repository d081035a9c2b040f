"""Checks of a force field besides its trajectory: its forces are the gradient of its energy, and are smooth."""

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
from mlff_exp.measure import LARGEST_MOVE_ANG, detrended_std, energy_rounding, gradient_errors, linear_slope
from mlff_exp.results import Estimate
from mlff_exp.structures import collate, rebuild_neighbors, uses_all_pairs

MAX_DIFFERENCED_COORDINATES = 36
MAX_TEACHER_FRAMES = 200
PROBE_FS = 100.0  # length of the trajectories that compare timesteps: many periods of the fastest vibration
REVERSED_STEPS = 200
SLOTS_AT_ONCE = 8192
UNBOUND_EV_PER_ANG = 1e-6  # force on an atom 0.05 Å off its place; an atom of a noble gas feels 1,000 times as much


def finite_difference_error(reference: Engine, atoms: Atoms, rng: np.random.Generator) -> float:
    """Compare forces with central differences of the energy at a displaced geometry.

    Args:
        reference: engine in FP64, or a calculator in its own precision.
        atoms: a structure near a minimum, which is displaced at random.
        rng: draws the displacement, and chooses the coordinates if there are many.

    Returns:
        The largest of `measure.gradient_errors`, eV/Å.
    """
    start = atoms.copy()
    start.positions += rng.normal(scale=0.05, size=start.positions.shape)
    chosen = rng.permutation(3 * len(start))[:MAX_DIFFERENCED_COORDINATES]
    errors, rounding_ev = [], None
    for part in np.array_split(chosen, min(len(chosen), -(-len(chosen) * len(start) // SLOTS_AT_ONCE))):
        batch = collate(
            [start] * len(part),
            reference.cutoff,
            near=reference.shorter_cutoffs,
            skin=2 * LARGEST_MOVE_ANG,
            device=reference.device,
        )
        directions = torch.zeros(len(part), 3 * len(start), dtype=torch.float64, device=reference.device)
        directions[torch.arange(len(part)), torch.from_numpy(part)] = 1
        along = directions.view(-1, 3)
        rounding_ev = energy_rounding(reference, batch, along) if rounding_ev is None else rounding_ev
        errors.append(float(gradient_errors(reference, batch, along, rounding_ev).max()))
    return max(errors)


def unbound_atoms(atoms: Atoms, reference: Engine, rng: np.random.Generator) -> list[int]:
    """Find the atoms that feel no force at a displaced geometry. Their motion says nothing about a force field.

    Args:
        atoms: a structure near a minimum, which is displaced at random.
        reference: engine in FP64.
        rng: draws the displacement.

    Returns:
        The indices of these atoms.
    """
    moved = atoms.copy()
    moved.positions += rng.normal(scale=0.05, size=moved.positions.shape)
    if not np.isfinite(moved.positions).all():
        return []
    batch = collate([moved], reference.cutoff, near=reference.shorter_cutoffs, device=reference.device)
    forces = reference(batch).forces.norm(dim=-1)[: len(atoms)]
    unbound: list[int] = (forces < UNBOUND_EV_PER_ANG).nonzero().flatten().tolist()
    return unbound


def fluctuation_ratio_dt(reference: Engine, dynamics: Dynamics, state: MDState, system: int = 0) -> float:
    """Divide the fluctuation of a system's total energy at the timestep by that at half the timestep.

    Velocity Verlet conserves an energy that differs from the true one by the square of the timestep. The ratio is
    therefore 4 for a smooth force field. A smaller ratio says that something else than the timestep moves the energy.

    Args:
        reference: engine in FP64.
        dynamics: the systems and the timestep.
        state: the start of both trajectories.
        system: index of the system.

    Returns:
        The ratio; NaN if the energy does not fluctuate.
    """
    fluctuation = []
    for timestep_fs in (dynamics.timestep_fs, dynamics.timestep_fs / 2):
        alone, start = _alone(reference, dynamics, state, system, timestep_fs)
        trajectory = alone.run(start, round(PROBE_FS / timestep_fs), 1)
        total = (trajectory.potential + trajectory.kinetic)[:, 0]
        fluctuation.append(detrended_std(trajectory.times_ps, total))
    return fluctuation[0] / fluctuation[1] if fluctuation[1] > 0 else math.nan


def time_reversal_error(reference: Engine, dynamics: Dynamics, state: MDState, system: int = 0) -> float:
    """Integrate forwards and then backwards, and measure how far the atoms end from the start.

    Args:
        reference: engine in FP64.
        dynamics: the systems and the timestep.
        state: the start.
        system: index of the system.

    Returns:
        The largest distance of an atom from its start, Å, after `REVERSED_STEPS` each way.
    """
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
    """Evaluate the potential energy of every recorded frame again.

    An engine of low precision gives noisy energies. The reference shows where the engine really took the atoms.

    Args:
        reference: engine in FP64.
        dynamics: the systems.
        trajectory: the frames.

    Returns:
        [n_frames, n_systems] eV.
    """
    systems = dynamics.systems
    n_frames, _, n_slots, _ = trajectory.positions.shape
    at_once = min(max(1, SLOTS_AT_ONCE // (len(systems) * n_slots)), n_frames)
    batch = collate(systems * at_once, reference.cutoff, near=reference.shorter_cutoffs, device=reference.device)
    listed = [not uses_all_pairs(atoms) for atoms in systems * at_once]
    energies = []
    for first in range(0, n_frames, at_once):
        frames = trajectory.positions[first : first + at_once]
        # The last batch is filled up with copies, so that all batches have one shape.
        filled = np.concatenate([frames, np.repeat(frames[-1:], at_once - len(frames), axis=0)])
        batch = batch.with_positions(torch.from_numpy(filled.reshape(-1, 3)).to(reference.device))
        if any(listed):
            batch = rebuild_neighbors(batch, listed, reference.cutoff)
        energies.append(reference(batch).energy.view(at_once, len(systems))[: len(frames)].cpu().numpy())
    return np.concatenate(energies)


def teacher_drift(teacher: Engine, dynamics: Dynamics, trajectory: Trajectory) -> list[Estimate]:
    """Fit the slope of V_teacher + K along every trajectory of a student.

    A student may conserve its own energy while this sum changes. Then it takes the atoms to where student and teacher
    disagree.

    Args:
        teacher: engine that evaluates at most `MAX_TEACHER_FRAMES` of the frames.
        dynamics: the systems that the student moved.
        trajectory: the frames of the student.

    Returns:
        The slope of each system, meV/atom/ps.
    """
    thin = slice(None, None, -(-len(trajectory.steps) // MAX_TEACHER_FRAMES))
    frames = replace(trajectory, positions=trajectory.positions[thin])
    total = potential_along(teacher, dynamics, frames) + trajectory.kinetic[thin]
    return [
        linear_slope(trajectory.times_ps[thin], 1000 * total[:, index] / len(atoms))
        for index, atoms in enumerate(dynamics.systems)
    ]
