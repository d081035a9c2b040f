"""Forces that are a gradient, and forces that are not: circulation and differences of the engine's own energy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from torch import Tensor, nn

from mlff_exp.config import Precision
from mlff_exp.dynamics import gradient
from mlff_exp.dynamics.checks import finite_difference_error
from mlff_exp.dynamics.gradient import circulation_errors, own_difference_errors
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.engines.prediction import Prediction
from mlff_exp.measure.circulation import circulation_error
from mlff_exp.models.checkpoint import load_checkpoint
from mlff_exp.structures.batch import AtomicBatch, collate
from tests.helpers.engines import Faulty

CPU = torch.device("cpu")
LIMIT, OWN_LIMIT = 2e-5, 5e-3  # of gate=strict


class Analytic:
    """Springs between all pairs of atoms, and what else acts on them; no network."""

    cutoff, device = 5.0, CPU
    shorter_cutoffs = ()

    def __init__(self, lengths: Tensor, extra: Callable[[Tensor], Tensor] = torch.zeros_like) -> None:
        self.lengths, self.extra = lengths, extra

    def __call__(self, batch: AtomicBatch) -> Prediction:
        positions = batch.per_system(batch.positions).detach().requires_grad_(True)
        pairs = positions.unsqueeze(2) - positions.unsqueeze(1)
        distances = (pairs.square().sum(-1) + torch.eye(batch.n_slots, dtype=torch.float64)).sqrt()
        energy = 0.25 * 5.0 * (distances - self.lengths).square().sum(dim=(1, 2))
        (slopes,) = torch.autograd.grad(energy.sum(), positions)
        return Prediction(energy.detach(), (self.extra(positions.detach()) - slopes).flatten(0, 1))


def springs(atoms: Atoms, extra: Callable[[Tensor], Tensor] = torch.zeros_like) -> Analytic:
    distances = torch.from_numpy(atoms.get_all_distances())
    return Analytic(distances + torch.eye(len(atoms)), extra)


def circulation(engine: Analytic | EagerEngine, atoms: Atoms, n_starts: int = 4) -> float:
    batch = collate([atoms] * n_starts, engine.cutoff, skin=1.0)
    (error,) = circulation_errors(engine, batch, n_starts, np.random.default_rng(0))  # type: ignore[arg-type]
    return error


def swirl(strength: float, n_swirled: int | None = None) -> Callable[[Tensor], Tensor]:
    """A rotation about the centre of the first so many atoms, which adds up to nothing."""

    def forces(positions: Tensor) -> Tensor:
        chosen = positions[:, :n_swirled]
        arms = chosen - chosen.mean(dim=1, keepdim=True)
        turned = torch.linalg.cross(torch.tensor([0.0, 0.0, strength], dtype=torch.float64).expand_as(arms), arms)
        return torch.cat([turned, torch.zeros_like(positions[:, chosen.shape[1] :])], dim=1)

    return forces


def test_a_gradient_has_no_circulation() -> None:
    assert circulation(springs(molecule("C6H6")), molecule("C6H6")) < 1e-11


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_the_student_is_conservative(precision: Precision) -> None:
    model = load_checkpoint("student_small").model.cast(torch.float64 if precision == "fp64" else torch.float32)
    engine, atoms = EagerEngine(model, precision, CPU), molecule("CH3CH2OH")
    assert circulation(engine, atoms) < LIMIT / 10
    batch = collate([atoms] * 9, engine.cutoff)
    (error,) = own_difference_errors(engine, batch, 9, np.random.default_rng(0))
    assert error < OWN_LIMIT / 10


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_a_rotation_about_the_centre_has_one(strength: float) -> None:
    assert circulation(springs(molecule("C6H6"), swirl(strength)), molecule("C6H6")) > 3 * LIMIT


def test_a_network_of_forces_has_one() -> None:
    """Forces predicted from the positions, as direct-force models do, are a gradient of nothing."""
    atoms = molecule("H2O")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(9, 32), nn.SiLU(), nn.Linear(32, 9)).double().requires_grad_(False)

    def forces(positions: Tensor) -> Tensor:
        found: Tensor = network(positions.flatten(1)).view_as(positions)
        return found - found.mean(dim=1, keepdim=True)

    assert circulation(springs(atoms, lambda positions: 0.1 * forces(positions)), atoms) > 3 * LIMIT


def test_a_curl_that_differences_of_some_coordinates_miss_is_found() -> None:
    """Of 180 coordinates 36 are differenced; the curl is in six of the others."""
    atoms = molecule("C60")
    engine = springs(atoms, swirl(0.5, n_swirled=2))
    rngs = [np.random.default_rng(seed) for seed in range(8)]
    missed = [seed for seed, rng in enumerate(rngs) if finite_difference_error(engine, atoms, rng) < 1e-4]  # type: ignore[arg-type]
    assert missed, "one of eight draws misses the six coordinates"
    assert circulation(engine, atoms) > LIMIT


def test_each_system_of_a_batch_is_judged_by_itself() -> None:
    atoms = molecule("H2O")

    def only_last(positions: Tensor) -> Tensor:
        forces = swirl(0.5)(positions)
        forces[:2] = 0
        return forces

    batch = collate([atoms] * 4, 5.0)
    engine = springs(atoms, only_last)
    first, second = circulation_errors(engine, batch, 2, np.random.default_rng(0))  # type: ignore[arg-type]
    assert first < 1e-11
    assert second > LIMIT
    first, second = own_difference_errors(engine, batch, 2, np.random.default_rng(0))  # type: ignore[arg-type]
    assert first < 1e-6
    assert second > OWN_LIMIT


def test_a_faulty_kernel_is_seen_on_its_own_energy() -> None:
    """Energies are right, and forces are a gradient of something else."""
    engine = Faulty(load_checkpoint("student_small").model, "fp32", CPU)
    engine.fault = lambda prediction: replace(prediction, forces=1.02 * prediction.forces)
    batch = collate([molecule("H2O")] * 2, engine.cutoff)
    (error,) = own_difference_errors(engine, batch, 2, np.random.default_rng(0))
    assert error > OWN_LIMIT
    (error,) = circulation_errors(engine, batch, 2, np.random.default_rng(0))
    assert error < LIMIT, "2% more of a gradient is a gradient"


def test_one_start_has_several_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def kept(work: np.ndarray, moved: np.ndarray) -> float:
        shapes.append(work.shape)
        return circulation_error(work, moved)

    monkeypatch.setattr(gradient, "circulation_error", kept)
    circulation(springs(molecule("H2O")), molecule("H2O"), n_starts=1)
    assert shapes == [(4, 1)]


def test_what_feels_no_force_has_no_circulation() -> None:
    assert np.isnan(circulation_error(np.zeros(3), np.zeros(3)))
