"""Prepare the start of a trajectory: bring a minimum to a temperature without drift or rotation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from torch import Tensor

from mlff_exp.dynamics.recording import Trajectory
from mlff_exp.dynamics.state import MDState
from mlff_exp.dynamics.verlet import Dynamics

TEMPERATURE_TOLERANCE = 1 / 30  # of the temperature: 10 K at 300 K
MAX_CORRECTIONS = 8
RECORD_START_EVERY = 2  # steps; often enough to find a frame close to the temperature


class StartError(RuntimeError):
    """The systems blew up while the start was prepared."""


class TemperatureError(RuntimeError):
    """The systems could not be brought to the mean temperature: they were probed too short, or heat or cool."""


def prepare_start(
    dynamics: Dynamics,
    temperature_k: float,
    settle_ps: float,
    probe_ps: float,
    rng: np.random.Generator,
    progress: Callable[[int], object] | None = None,
) -> MDState:
    """Bring relaxed systems to a mean temperature, so that NVE judges the force field and not the start.

    A relaxed molecule with velocities at T ends near T/2, because half of the kinetic energy becomes potential energy.
    The steps are therefore:

    1. Draw velocities at 2T and run NVE for ``settle_ps``.
    2. Take the frame of the second half that is nearest to T, and draw new velocities, scaled to exactly T.
    3. Run NVE for ``probe_ps``. If its mean temperature is off, scale the momenta by √(1 + ΔE/K) with
       ΔE = (T − T_mean) k dof, and repeat this step.

    Args:
        dynamics: the relaxed systems.
        temperature_k: the mean temperature T, K.
        settle_ps: length of the first run, ps.
        probe_ps: length of each run that measures the mean temperature, ps.
        rng: draws the velocities.
        progress: function that is called with the number of steps since its last call.

    Returns:
        The state at the start, on the device of the engine.

    Raises:
        StartError: the systems blew up.
        TemperatureError: the mean temperature could not be reached.
    """
    batch = dynamics.batch
    velocities = _draw_velocities(dynamics, batch.positions, 2 * temperature_k, rng)
    state = dynamics.state(batch.positions, velocities)
    settled = dynamics.run(state, steps_of(settle_ps, dynamics), RECORD_START_EVERY, progress)
    refuse_blow_up(settled)
    half = len(settled.steps) // 2
    nearest = half + np.abs(settled.temperature[half:] - temperature_k).argmin(axis=0)
    chosen = settled.positions[nearest, np.arange(batch.n_systems)]
    positions = torch.from_numpy(chosen).to(batch.positions.device).flatten(0, 1)
    state = dynamics.state(positions, _draw_velocities(dynamics, positions, temperature_k, rng))

    tolerance_k = TEMPERATURE_TOLERANCE * temperature_k
    for _ in range(MAX_CORRECTIONS):
        probe = dynamics.run(state, steps_of(probe_ps, dynamics), RECORD_START_EVERY, progress)
        refuse_blow_up(probe)
        missing_k = temperature_k - probe.temperature.mean(axis=0)
        off = np.abs(missing_k) > tolerance_k
        if not off.any():
            return state
        kinetic = dynamics.kinetic_energy(state.velocities).cpu().numpy()
        added = np.where(off, missing_k * units.kB * dynamics.dof, 0.0)
        # A frame may hold less kinetic energy than has to leave: then take half now and the rest in the next round.
        factor = np.sqrt(np.maximum(1 + added / kinetic, 0.5))
        scale = torch.from_numpy(factor).to(positions.device)
        state.velocities = state.velocities * scale.repeat_interleave(batch.n_slots).unsqueeze(-1)
    raise TemperatureError(
        f"the start did not reach a mean of {temperature_k} ± {tolerance_k:.0f} K in {MAX_CORRECTIONS} probes "
        f"of {probe_ps} ps (off by {np.abs(missing_k).max():.0f} K): lengthen task.probe_ps"
    )


def steps_of(duration_ps: float, dynamics: Dynamics) -> int:
    """Return the number of steps in a time."""
    return round(duration_ps * 1000 / dynamics.timestep_fs)


def refuse_blow_up(trajectory: Trajectory) -> None:
    """Refuse a trajectory that blew up.

    Raises:
        StartError: the trajectory blew up; the message says how.
    """
    if trajectory.blow_up is not None:
        raise StartError(f"blew up while the start was prepared: {trajectory.blow_up}")


def _draw_velocities(dynamics: Dynamics, positions: Tensor, temperature_k: float, rng: np.random.Generator) -> Tensor:
    """Draw Maxwell-Boltzmann velocities without linear and, for molecules, angular momentum, scaled to exactly T.

    The temperature counts the internal degrees of freedom: 3N − 6, for linear molecules 3N − 5, in a cell 3N − 3.

    Args:
        dynamics: the systems.
        positions: [n_rows, 3] Å.
        temperature_k: the temperature of every system, K.
        rng: draws the velocities.

    Returns:
        [n_rows, 3] in ASE's units, FP64; zero for padding.
    """
    batch = dynamics.batch
    velocities = np.zeros((batch.n_systems, batch.n_slots, 3))
    for index, (system, padded) in enumerate(
        zip(dynamics.systems, batch.per_system(positions).cpu().numpy(), strict=True)
    ):
        # ASE's functions would leave out the momenta of constrained atoms, and the dynamics has no constraints.
        atoms = Atoms(system.numbers, padded[: len(system)], masses=system.get_masses())
        thermalize_momenta(atoms, temperature_k, rng=rng)
        Stationary(atoms, preserve_temperature=False)
        if not system.pbc.any():
            _stop_rotation(atoms)
        wanted = 0.5 * units.kB * temperature_k * dynamics.dof[index]
        velocities[index, : len(atoms)] = atoms.get_velocities() * np.sqrt(wanted / atoms.get_kinetic_energy())
    return torch.from_numpy(velocities.reshape(-1, 3)).to(positions.device)


def _stop_rotation(atoms: Atoms) -> None:
    """Take the angular momentum of a molecule away, in place.

    ASE's ``ZeroRotation`` divides by the moments of inertia. The moment of a linear molecule about its axis is zero but
    for rounding. The pseudo-inverse leaves this axis out.
    """
    masses = atoms.get_masses()[:, None]
    arms = atoms.positions - atoms.get_center_of_mass()
    inertia = (masses * np.square(arms)).sum() * np.eye(3) - np.einsum("ai,aj->ij", masses * arms, arms)
    spin = np.linalg.pinv(inertia, rcond=1e-6) @ atoms.get_angular_momentum()
    atoms.set_velocities(atoms.get_velocities() - np.cross(spin, arms))
