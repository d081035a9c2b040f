"""A minimum is one: not a saddle, not uphill."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from mlff_exp.dynamics import relaxation
from mlff_exp.dynamics.relaxation import _relaxed, find_minimum, softest_mode
from mlff_exp.engines.ase import EngineCalculator
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.engines.prediction import Prediction
from mlff_exp.engines.protocol import Engine
from mlff_exp.models.painn import PaiNN
from mlff_exp.structures.batch import AtomicBatch
from tests.helpers.engines import Faulty

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def exact(student: PaiNN) -> EagerEngine:
    return EagerEngine(copy.deepcopy(student).cast(torch.float64), "fp64", CPU)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class Analytic:
    """An energy that is a function of one system's positions, [n_atoms, 3] Å."""

    cutoff, device, precision, name = 5.0, CPU, "fp64", "analytic"
    shorter_cutoffs = ()

    def __init__(self, energy: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._energy, self.evaluations = energy, 0

    def __call__(self, batch: AtomicBatch) -> Prediction:
        self.evaluations += batch.n_systems
        positions = batch.positions.clone().requires_grad_()
        energies = torch.stack(
            [
                self._energy(system[batch.atomic_numbers.view(batch.n_systems, -1)[index] > 0])
                for index, system in enumerate(positions.view(batch.n_systems, -1, 3))
            ]
        )
        (gradient,) = torch.autograd.grad(energies.sum(), positions)
        return Prediction(energies.detach(), -gradient)


def flat_ammonia() -> Atoms:
    return Atoms("NH3", [[0, 0, 0], [0.94, 0, 0], [-0.47, 0.814, 0], [-0.47, -0.814, 0]])


def test_a_flat_drawing_is_followed_to_the_minimum(exact: EagerEngine) -> None:
    """A symmetric start relaxes to the top of the barrier of inversion, and no force says so."""
    expected = find_minimum(molecule("NH3"), exact, rng())
    found = find_minimum(flat_ammonia(), exact, rng())
    assert not found.faults
    assert found.energy == pytest.approx(expected.energy, abs=1e-3)
    assert np.ptp(found.atoms.positions[:, 2]) > 0.2


def test_a_minimum_stays_what_it_was(exact: EagerEngine) -> None:
    atoms, before = molecule("CH3CH2OH"), exact.evaluations
    relaxed = _relaxed(atoms, exact)
    alone = exact.evaluations - before
    found = find_minimum(atoms, exact, rng())
    assert not found.faults
    assert found.energy == pytest.approx(relaxed.energy, abs=1e-9)
    np.testing.assert_allclose(found.atoms.positions, relaxed.atoms.positions, atol=1e-9)
    assert exact.evaluations - before - 2 * alone <= 6 * len(atoms) + 2


def test_the_softest_mode_of_a_double_well_is_across_it() -> None:
    """The energy is a stiff spring between two atoms and a double well of how far the third is above them."""

    def energy(p: torch.Tensor) -> torch.Tensor:
        spring = 10 * ((p[0] - p[1]).norm() - 1) ** 2
        above = p[2] - (p[0] + p[1]) / 2
        return spring + 5 * (above[1] - 1.2) ** 2 + 5 * above[0] ** 2 + above[2] ** 4 - above[2] ** 2

    engine = Analytic(energy)
    saddle = Atoms("OHH", [[-0.5, 0, 0], [0.5, 0, 0], [0, 1.2, 0]], cell=[20, 20, 20], pbc=True)
    curvature, mode = softest_mode(saddle, engine, rng())  # type: ignore[arg-type]
    assert curvature == pytest.approx(-2 * 1.5, rel=1e-2)
    assert abs(mode[2, 2]) == pytest.approx(1)
    found = find_minimum(saddle, engine, rng())  # type: ignore[arg-type]
    assert not found.faults
    assert found.energy == pytest.approx(-0.25, abs=1e-3)


def test_lanczos_finds_a_saddle_in_a_large_system(monkeypatch: pytest.MonkeyPatch, exact: EagerEngine) -> None:
    flat = find_minimum_of_flat(exact)
    dense, _ = softest_mode(flat, exact, rng())
    monkeypatch.setattr(relaxation, "MAX_ATOMS_OF_HESSIAN", 0)
    iterated, mode = softest_mode(flat, exact, rng())
    assert iterated == pytest.approx(dense, rel=0.05)
    assert np.abs(mode[:, 2]).max() > 0.9


def find_minimum_of_flat(exact: EagerEngine) -> Atoms:
    return _relaxed(flat_ammonia(), exact).atoms


def test_translations_and_rotations_have_no_curvature(exact: EagerEngine) -> None:
    for name in ("CO2", "C6H6"):
        relaxed = _relaxed(molecule(name), exact).atoms
        assert softest_mode(relaxed, exact, rng())[0] > -0.02


def test_forces_that_lead_uphill_lead_to_no_minimum(exact: EagerEngine) -> None:
    engine = Faulty(exact.model, "fp64", CPU)
    engine.fault = lambda p: replace(p, energy=-p.energy)
    stretched = molecule("H2O")
    stretched.set_distance(0, 1, 1.1)
    found = find_minimum(stretched, engine, rng())
    assert found.faults


def test_far_from_a_minimum_it_still_goes_downhill(exact: EagerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coordinates in bohr that were meant to be in Å."""
    monkeypatch.setattr(relaxation, "MAX_STEPS", 60)
    atoms = molecule("H2O")
    atoms.positions *= 1.8897
    atoms.calc = EngineCalculator(exact)
    start = atoms.get_potential_energy()
    atoms.calc = None
    assert find_minimum(atoms, exact, rng()).energy < start


def test_what_becomes_nan_ends_and_is_a_fault(exact: EagerEngine) -> None:
    engine: Engine = Faulty(exact.model, "fp64", CPU)
    engine.fault = lambda p: replace(p, forces=p.forces * float("nan"))  # type: ignore[attr-defined]
    found = find_minimum(molecule("H2O"), engine, rng())
    assert found.faults[0].startswith("does not relax: nan eV/Å")
