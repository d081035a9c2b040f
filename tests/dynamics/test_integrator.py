"""The integrator held against statistical mechanics by the `physical-validation` package.

Merz & Shirts, "Testing for physical validity in molecular simulations", PLoS ONE 13, e0202764 (2018).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ase import units
from ase.build import molecule

from mlff_exp.dynamics.verlet import Dynamics
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.engines.prediction import Prediction
from mlff_exp.models.checkpoint import load_checkpoint
from mlff_exp.structures.batch import AtomicBatch
from tests.conftest import rattled

CPU = torch.device("cpu")
TEMPERATURE_K = 300.0
SPRING_EV_PER_ANG2 = 30.0


class Springs:
    """Every atom tied to its place: a force field whose canonical ensemble can be drawn exactly."""

    cutoff, device, capturable = 5.0, CPU, None
    shorter_cutoffs = ()

    def __init__(self, places: torch.Tensor, n_systems: int) -> None:
        self.places, self.n_systems = places, n_systems

    def __call__(self, batch: AtomicBatch) -> Prediction:
        away = batch.positions - self.places
        energy = 0.5 * SPRING_EV_PER_ANG2 * away.square().reshape(self.n_systems, -1).sum(dim=1)
        return Prediction(energy, -SPRING_EV_PER_ANG2 * away)


@pytest.fixture(scope="module")
def validation() -> ModuleType:
    import physical_validation

    return physical_validation


def simulation(validation: ModuleType, timestep_fs: float, natoms: int, **observables: np.ndarray) -> Any:
    return validation.data.SimulationData(
        units=validation.data.UnitData(
            kb=units.kB, energy_conversion=96.485, length_conversion=0.1, volume_conversion=1e-3,
            temperature_conversion=1.0, pressure_conversion=1.0, time_conversion=1e-3,
        ),
        dt=timestep_fs,
        system=validation.data.SystemData(
            natoms=natoms, nconstraints=0, ndof_reduction_tra=0, ndof_reduction_rot=0, mass=np.ones(natoms)
        ),
        ensemble=validation.data.EnsembleData("NVT", natoms=natoms, volume=1.0, temperature=TEMPERATURE_K),
        observables=validation.data.ObservableData(**observables),
    )  # fmt: skip


@pytest.mark.slow
def test_a_canonical_ensemble_stays_one(validation: ModuleType) -> None:
    """Motion at constant energy maps the canonical ensemble onto itself (Liouville)."""
    n_systems, rng = 2000, np.random.default_rng(0)
    atoms = molecule("H2O")
    places = torch.from_numpy(np.tile(atoms.positions, (n_systems, 1)))
    springs: Any = Springs(places, n_systems)
    dynamics = Dynamics(springs, [atoms] * n_systems, timestep_fs=0.5)
    thermal = units.kB * TEMPERATURE_K
    away, drawn = (torch.from_numpy(rng.normal(size=places.shape)) for _ in range(2))
    state = dynamics.state(
        places + away * (thermal / SPRING_EV_PER_ANG2) ** 0.5, drawn * (thermal / dynamics.masses).sqrt()
    )
    for _ in range(300):
        dynamics.step(state)
    kinetic = dynamics.kinetic_energy(state.velocities).numpy()

    def p_value(energies: np.ndarray) -> float:
        found: float = validation.kinetic_energy.distribution(
            simulation(validation, 0.5, len(atoms), kinetic_energy=energies),
            strict=True, verbosity=0, data_is_uncorrelated=True,
        )  # fmt: skip
        return found

    assert p_value(kinetic) > 0.01
    assert p_value(1.1 * kinetic) < 1e-6


@pytest.mark.slow
def test_fluctuations_of_the_energy_shrink_with_the_square_of_the_step(validation: ModuleType) -> None:
    model = load_checkpoint("student_small").model.cast(torch.float64).requires_grad_(False)
    simulations = []
    for timestep_fs in (1.0, 0.5, 0.25):
        dynamics = Dynamics(EagerEngine(model, "fp64", CPU), [rattled("H2O", 1)], timestep_fs=timestep_fs)
        state = dynamics.state(dynamics.batch.positions, torch.zeros_like(dynamics.batch.positions))
        trajectory = dynamics.run(state, round(200 / timestep_fs), round(1 / timestep_fs))
        total = (trajectory.potential + trajectory.kinetic)[:, 0]
        simulations.append(simulation(validation, timestep_fs, 3, constant_of_motion=total))
    deviation = validation.integrator.convergence(simulations, verbose=False)
    assert deviation < 0.1
    broken = simulation(validation, 0.25, 3, constant_of_motion=simulations[1].observables.constant_of_motion)
    assert validation.integrator.convergence([*simulations[:2], broken], verbose=False) > 0.5
