"""Checks of a force field: right for a right one, and telling for each way to be wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from mlff_exp.dynamics import checks
from mlff_exp.dynamics.checks import finite_difference_error, fluctuation_ratio_dt, potential_along, time_reversal_error
from mlff_exp.dynamics.state import MDState
from mlff_exp.dynamics.verlet import Dynamics
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.engines.protocol import Engine
from mlff_exp.models.painn import PaiNN
from mlff_exp.structures.batch import collate
from mlff_exp.structures.systems import water_box
from tests.helpers.engines import Faulty

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def exact(student_small: PaiNN) -> EagerEngine:
    return EagerEngine(copy.deepcopy(student_small).cast(torch.float64), "fp64", CPU)


def changed(exact: EagerEngine, change: Callable[[torch.Tensor], torch.Tensor]) -> Faulty:
    """The same with other forces than its own."""
    engine = Faulty(exact.model, "fp64", CPU)
    engine.fault = lambda prediction: replace(prediction, forces=change(prediction.forces))
    return engine


def moving(engine: Engine, systems: list[Atoms], timestep_fs: float = 0.5) -> tuple[Dynamics, MDState]:
    dynamics = Dynamics(engine, systems, timestep_fs)
    generator = torch.Generator().manual_seed(1)
    velocities = 0.02 * torch.randn(dynamics.batch.positions.shape, generator=generator, dtype=torch.float64)
    return dynamics, dynamics.state(dynamics.batch.positions, velocities)


def test_a_smooth_force_field_holds(exact: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over four periods of the fastest vibration instead of ten."""
    monkeypatch.setattr(checks, "PROBE_FS", 40.0)
    monkeypatch.setattr(checks, "REVERSED_STEPS", 80)
    dynamics, state = moving(exact, [molecule("H2O")])
    before = state.positions.clone()
    assert 3.8 < fluctuation_ratio_dt(exact, dynamics, state) < 4.2
    assert time_reversal_error(exact, dynamics, state) < 1e-9
    assert finite_difference_error(exact, molecule("H2O"), np.random.default_rng(0)) < 1e-6
    assert torch.equal(state.positions, before), "the start that was checked has moved"


def test_noise_is_seen_by_the_timestep_and_by_reversal(exact: EagerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "REVERSED_STEPS", 80)
    generator = torch.Generator().manual_seed(0)
    noisy = changed(exact, lambda forces: forces + 0.3 * torch.randn(forces.shape, generator=generator).double())
    dynamics, state = moving(exact, [molecule("H2O")])
    assert not 3 < fluctuation_ratio_dt(noisy, dynamics, state) < 5
    assert time_reversal_error(noisy, dynamics, state) > 1e-4


def test_forces_that_are_no_gradient_are_seen_by_finite_differences(exact: EagerEngine) -> None:
    scaled = changed(exact, lambda forces: 1.02 * forces)
    assert finite_difference_error(scaled, molecule("H2O"), np.random.default_rng(0)) > 1e-3


@pytest.mark.parametrize("at_once", [1, 100, 10_000])
@pytest.mark.parametrize("periodic", [False, True])
def test_the_energy_of_every_frame_anew(
    exact: Engine, monkeypatch: pytest.MonkeyPatch, at_once: int, periodic: bool
) -> None:
    monkeypatch.setattr(checks, "SLOTS_AT_ONCE", at_once)
    systems = [water_box(4)] if periodic else [molecule("NH3"), molecule("NH3")]
    dynamics, state = moving(exact, systems)
    trajectory = dynamics.run(state, 6, 2)
    again = potential_along(exact, dynamics, trajectory)
    np.testing.assert_allclose(again, trajectory.potential, atol=1e-9)
    frame = systems[0].copy()
    frame.positions = trajectory.positions[-1, 0]
    single = exact(collate([frame], exact.cutoff)).energy.item()
    assert again[-1, 0] == pytest.approx(single, abs=1e-9)
