"""How well `equipartition_ratio` can tell anything: benzene with harmonic modes, from eight starts of 100 ps.

The numbers are in docs/nve_validation.md.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule

from mlff_exp.dynamics.motion import motion_along
from mlff_exp.dynamics.recording import Trajectory
from mlff_exp.dynamics.relaxation import _hessian_times, find_minimum
from mlff_exp.dynamics.state import FloatArray
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.models.checkpoint import load_checkpoint

N_STARTS, N_FRAMES, DURATION_PS, KT = 8, 100, 100.0, 300 * units.kB
N_ENSEMBLES = 16


@pytest.fixture(scope="module")
def benzene() -> tuple[Atoms, FloatArray, FloatArray]:
    """Return benzene at its minimum, frequencies of its 30 modes and the modes in mass-weighted coordinates."""
    model = copy.deepcopy(load_checkpoint("student_small").model).cast(torch.float64).requires_grad_(False)
    engine = EagerEngine(model, "fp64", torch.device("cpu"))
    atoms = find_minimum(molecule("C6H6"), engine, np.random.default_rng(0)).atoms
    masses = np.repeat(atoms.get_masses(), 3)
    hessian = _hessian_times(np.eye(36), atoms, engine)
    curvatures, modes = np.linalg.eigh((hessian + hessian.T) / 2 / np.sqrt(np.outer(masses, masses)))
    return atoms, np.sqrt(curvatures[6:]), modes[:, 6:]


def metrics_of_ensemble(
    system: tuple[Atoms, FloatArray, FloatArray], exchange_ps: float | None, rng: np.random.Generator
) -> dict[str, float]:
    """Return the metrics of eight starts of the same energy.

    Args:
        system: atoms, frequencies and modes.
        exchange_ps: the time in which a mode forgets its energy; None if modes exchange none.
        rng: draws energies and phases.
    """
    atoms, frequencies, modes = system
    times = np.linspace(0, DURATION_PS * 1000 * units.fs, N_FRAMES)
    kept = 1.0 if exchange_ps is None else np.exp(-(times[1] - times[0]) / (2000 * exchange_ps * units.fs))
    shape = (N_FRAMES, N_STARTS, len(atoms), 3)
    positions, velocities = np.empty(shape), np.empty(shape)
    weights = np.sqrt(np.repeat(atoms.get_masses(), 3))
    for start in range(N_STARTS):
        drawn, energies = rng.normal(size=(len(frequencies), 2)), []
        for _ in times:
            squares = np.square(drawn).sum(axis=1)  # uniform over all states of this total energy
            energies.append(len(frequencies) * KT * squares / squares.sum())
            drawn = kept * drawn + np.sqrt(1 - kept**2) * rng.normal(size=drawn.shape)
        sizes, phases = np.sqrt(2 * np.array(energies)), np.outer(times, frequencies)
        phases += rng.uniform(0, 2 * np.pi, len(frequencies))
        moved = (sizes / frequencies * np.cos(phases)) @ modes.T / weights
        positions[:, start] = atoms.positions + moved.reshape(N_FRAMES, -1, 3)
        velocities[:, start] = (-(sizes * np.sin(phases)) @ modes.T / weights).reshape(N_FRAMES, -1, 3)
    ones, steps = np.ones(shape[:2]), np.arange(N_FRAMES)
    trajectory = Trajectory(
        steps, times / (1000 * units.fs), ones, ones, ones, ones, ones, ones, positions, velocities, None
    )
    return motion_along(trajectory, 0, N_STARTS, atoms)


@pytest.mark.parametrize(
    ("exchange_ps", "carbon", "hydrogen", "stretch"),
    [(None, 0.05, 0.04, 0.14), (10.0, 0.024, 0.018, 0.053), (1.0, 0.008, 0.006, 0.019)],
)
def test_the_spread_of_the_ratios_depends_on_how_fast_modes_exchange_energy(
    benzene: tuple[Atoms, FloatArray, FloatArray],
    exchange_ps: float | None,
    carbon: float,
    hydrogen: float,
    stretch: float,
) -> None:
    rng = np.random.default_rng(1)
    ensembles = [metrics_of_ensemble(benzene, exchange_ps, rng) for _ in range(N_ENSEMBLES)]
    for group, spread in (("element/C", carbon), ("element/H", hydrogen), ("stretch/XH", stretch)):
        ratios = np.array([metrics[f"equipartition_ratio/{group}"] for metrics in ensembles])
        assert abs(ratios.mean() - 1) < 4 * spread / np.sqrt(N_ENSEMBLES), group
        assert spread / 1.8 < ratios.std(ddof=1) < 1.8 * spread, group
        low, high = (
            np.array([one[f"equipartition_ratio_ci_{end}/{group}"] for one in ensembles]) for end in ("low", "high")
        )
        assert ((low <= 1) & (high >= 1)).mean() >= 0.75, group
