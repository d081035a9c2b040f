"""Checks of a force field: right for a right one, and telling for each way to be wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from mlff_exp import checks
from mlff_exp.batch import AtomicBatch, collate
from mlff_exp.engine import EagerEngine, Engine, make_engine
from mlff_exp.md import Dynamics, MDState
from mlff_exp.painn import PaiNN
from mlff_exp.prediction import Prediction
from mlff_exp.systems import water_box

CPU = torch.device("cpu")


class Changed(EagerEngine):
    """The student in FP64 with other forces than its own."""

    def __init__(self, model: PaiNN, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(model, "fp64", CPU)
        self.change = change

    def __call__(self, batch: AtomicBatch) -> Prediction:
        prediction = super().__call__(batch)
        return Prediction(prediction.energy, self.change(prediction.forces))


@pytest.fixture
def exact(student: PaiNN) -> Engine:
    return make_engine(student, "eager", "fp64", CPU)


@pytest.fixture
def noisy(exact: Engine) -> Engine:
    generator = torch.Generator().manual_seed(0)

    def add_noise(forces: torch.Tensor) -> torch.Tensor:
        return forces + 0.3 * torch.randn(forces.shape, generator=generator, dtype=forces.dtype)

    assert isinstance(exact, EagerEngine)
    assert isinstance(exact.model, PaiNN)
    return Changed(exact.model, add_noise)


def moving(engine: Engine, systems: list[Atoms], timestep_fs: float = 0.5) -> tuple[Dynamics, MDState]:
    dynamics = Dynamics(engine, systems, timestep_fs)
    generator = torch.Generator().manual_seed(1)
    velocities = 0.02 * torch.randn(dynamics.batch.positions.shape, generator=generator, dtype=torch.float64)
    return dynamics, dynamics.state(dynamics.batch.positions, velocities)


def test_a_smooth_force_field_holds(exact: Engine) -> None:
    dynamics, state = moving(exact, [molecule("H2O")])
    before = state.positions.clone()
    assert 3.8 < checks.fluctuation_ratio_dt(exact, dynamics, state) < 4.2
    assert checks.time_reversal_error(exact, dynamics, state) < 1e-9
    assert checks.finite_difference_error(exact, molecule("H2O"), np.random.default_rng(0)) < 1e-6
    assert torch.equal(state.positions, before), "the start that was checked has moved"


def test_noise_is_seen_by_the_timestep_and_by_reversal(exact: Engine, noisy: Engine) -> None:
    dynamics, state = moving(exact, [molecule("H2O")])
    assert not 3 < checks.fluctuation_ratio_dt(noisy, dynamics, state) < 5
    assert checks.time_reversal_error(noisy, dynamics, state) > 1e-4


def test_forces_that_are_no_gradient_are_seen_by_finite_differences(exact: Engine) -> None:
    assert isinstance(exact, EagerEngine)
    assert isinstance(exact.model, PaiNN)
    scaled = Changed(exact.model, lambda forces: 1.02 * forces)
    assert checks.finite_difference_error(scaled, molecule("H2O"), np.random.default_rng(0)) > 1e-3


@pytest.mark.parametrize("at_once", [1, 100, 10_000])
@pytest.mark.parametrize("periodic", [False, True])
def test_the_energy_of_every_frame_anew(
    exact: Engine, monkeypatch: pytest.MonkeyPatch, at_once: int, periodic: bool
) -> None:
    monkeypatch.setattr(checks, "SLOTS_AT_ONCE", at_once)
    systems = [water_box(4)] if periodic else [molecule("NH3"), molecule("NH3")]
    dynamics, state = moving(exact, systems)
    trajectory = dynamics.run(state, 6, 2)
    again = checks.potential_along(exact, dynamics, trajectory)
    np.testing.assert_allclose(again, trajectory.potential, atol=1e-9)
    frame = systems[0].copy()
    frame.positions = trajectory.positions[-1, 0]
    single = exact(collate([frame], exact.cutoff)).energy.item()
    assert again[-1, 0] == pytest.approx(single, abs=1e-9)
