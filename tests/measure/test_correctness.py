"""An engine that computes something else is found out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mlff_exp.config.words import PRECISIONS
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.engines.prediction import EngineError, Prediction
from mlff_exp.measure.correctness import TOLERANCES, require_correct
from mlff_exp.measure.differences import slope_errors
from mlff_exp.models.painn import PaiNN
from mlff_exp.structures.batch import AtomicBatch, collate
from tests.conftest import rattled
from tests.helpers.engines import Faulty
from tests.helpers.networks import crystal

CPU = torch.device("cpu")
FAULTS = {
    "a constant in the energy of one system": ("energies are", lambda p: replace(p, energy=_with(p.energy, 1, 1e-3))),
    "forces a little too large": ("forces are 0.001", lambda p: replace(p, forces=1.001 * p.forces)),
    "one force missing": ("forces are", lambda p: replace(p, forces=_with(p.forces, 4, -p.forces[4]))),
    "padding that is pushed": ("there are forces on padding", lambda p: replace(p, forces=_with(p.forces, 15, 1e-9))),
}


def _with(values: Tensor, index: int, added: Tensor | float) -> Tensor:
    values = values.clone()
    values[index] += added
    return values


def _stress(prediction: Prediction) -> Tensor:
    assert prediction.stress is not None
    return prediction.stress


@pytest.fixture
def batch() -> AtomicBatch:
    return collate([rattled("C6H6", 1), rattled("H2O", 2)], 5.0)


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_engine_is_refused(random_model: PaiNN, batch: AtomicBatch, name: str) -> None:
    message, fault = FAULTS[name]
    reference, engine = EagerEngine(random_model, "fp64", CPU), Faulty(random_model, "fp64", CPU)
    require_correct(engine, reference, batch, "fp64")
    engine.fault = fault
    with pytest.raises(EngineError, match=rf"^eager at fp64 on 2 systems of 12 slots: .*{message}"):
        require_correct(engine, reference, batch, "fp64")


def test_an_energy_that_does_not_follow_the_positions_is_refused(random_model: PaiNN, batch: AtomicBatch) -> None:
    reference, engine = EagerEngine(random_model, "fp64", CPU), Faulty(random_model, "fp64", CPU)
    stale = reference(batch).energy
    engine.fault = lambda prediction: replace(prediction, energy=stale)
    with pytest.raises(EngineError, match="from differences of the energy"):
        require_correct(engine, reference, batch, "fp64")


def test_forces_are_minus_the_slope(random_model: PaiNN, batch: AtomicBatch) -> None:
    engine = EagerEngine(random_model, "fp64", CPU)
    direction = torch.zeros_like(batch.positions)
    direction[3, 1] = 1
    assert slope_errors(engine, batch, direction, 1e-3)[0] < 1e-6
    assert slope_errors(engine, batch, 0 * direction, 1e-3).max() < 1e-9
    engine_off = Faulty(random_model, "fp64", CPU)
    engine_off.fault = lambda prediction: replace(prediction, forces=prediction.forces + 0.25)
    assert slope_errors(engine_off, batch, direction, 1e-3)[0] == pytest.approx(0.25, abs=1e-6)


def test_a_wrong_stress_is_refused(random_model: PaiNN) -> None:
    batch = collate([crystal(1, 2)], 5.0)
    reference = EagerEngine(random_model, "fp64", CPU, stress=True)
    engine = Faulty(random_model, "fp64", CPU, stress=True)
    require_correct(engine, reference, batch, "fp64")
    engine.fault = lambda prediction: replace(prediction, stress=1.001 * _stress(prediction))
    with pytest.raises(EngineError, match=r"stress is .* GPa off eager FP64, allowed 1e-09"):
        require_correct(engine, reference, batch, "fp64")
    engine.fault = lambda prediction: replace(prediction, stress=None)  # left out is not wrong
    require_correct(engine, reference, batch, "fp64")


@pytest.mark.parametrize("fault", ["sign", "unit", "one component"])
def test_a_plain_model_whose_stress_is_no_derivative_is_refused(random_model: PaiNN, fault: str) -> None:
    batch = collate([crystal(1, 2), crystal(2, 1)], 5.0)
    reference = Faulty(random_model, "fp64", CPU, stress=True)
    factor = torch.full((3, 3), {"sign": -1.0, "unit": 1.01, "one component": 1.0}[fault], dtype=torch.float64)
    if fault == "one component":
        factor[0, 1] = factor[1, 0] = -1
    reference.fault = lambda prediction: replace(prediction, stress=factor * _stress(prediction))
    with pytest.raises(EngineError, match=r"stress of eager FP64 differs by .* from differences of the energy under"):
        require_correct(reference, reference, batch, "fp64")


def test_every_precision_has_a_tolerance() -> None:
    assert set(TOLERANCES) == set(PRECISIONS)
