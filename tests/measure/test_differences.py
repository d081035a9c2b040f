"""Differences of an energy whose rounding is not known: a gradient passes in FP32 as in FP64, and nothing else does."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from ase.build import molecule

from mlff_exp.config.gate import Gate
from mlff_exp.dynamics.checks import finite_difference_error
from mlff_exp.engines.ase import AseEngine
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.measure.differences import energy_rounding
from mlff_exp.models.checkpoint import load_checkpoint
from mlff_exp.results.result import CONSERVATIVE
from mlff_exp.structures.batch import collate
from mlff_exp.tasks.own_forces import LIMITS, check_own_forces
from tests.helpers.here import configured
from tests.helpers.springs import RoundedSprings, ScaledForces, Springs, Swirl

LIMIT = LIMITS["finite_difference_error_ev_per_ang"]


class RoundedScaled(RoundedSprings, ScaledForces):
    """Forces that are 2% too large, in FP32."""


class RoundedSwirl(RoundedSprings, Swirl):
    """Forces with a curl, in FP32."""


class Heavy(RoundedSprings):
    total = -20_000.0


def error(kind: type[Springs], seed: int = 0) -> float:
    return finite_difference_error(AseEngine(kind()), Springs.start, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", [Springs, RoundedSprings, Heavy])
def test_a_gradient_passes_at_every_rounding(kind: type[Springs]) -> None:
    assert max(error(kind, seed) for seed in range(4)) < LIMIT
    assert check_own_forces(AseEngine(kind()), Springs.start, 0)[1] == CONSERVATIVE


@pytest.mark.parametrize("kind", [ScaledForces, Swirl, RoundedScaled, RoundedSwirl])
def test_what_is_no_gradient_fails_at_every_rounding(kind: type[Springs]) -> None:
    assert min(error(kind, seed) for seed in range(4)) > 10 * LIMIT
    assert check_own_forces(AseEngine(kind()), Springs.start, 0)[1].startswith("non-conservative")


def test_an_exact_energy_is_judged_as_strictly_as_its_limit() -> None:
    class Slightly(Springs):
        def spoil(self) -> None:
            self.results["forces"] *= 1.0001

    assert error(Slightly) > LIMIT


def test_a_network_in_fp32_is_a_gradient() -> None:
    student = load_checkpoint("student_small").model.requires_grad_(False)
    engine = EagerEngine(copy.deepcopy(student).cast(torch.float32), "fp32", torch.device("cpu"))
    for seed in range(3):
        assert finite_difference_error(engine, molecule("CH3OH"), np.random.default_rng(seed)) < LIMIT


@pytest.mark.parametrize(("kind", "expected"), [(RoundedSprings, 1.8e-5), (Heavy, 5.6e-4), (Springs, 1.6e-14)])
def test_rounding_is_measured(kind: type[Springs], expected: float) -> None:
    engine, atoms = AseEngine(kind()), Springs.start.copy()
    atoms.positions += np.random.default_rng(0).normal(scale=0.05, size=atoms.positions.shape)
    batch = collate([atoms] * 4, engine.cutoff)
    directions = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 3 * len(atoms))))
    directions = (directions / directions.norm(dim=1, keepdim=True)).view(-1, 3)
    assert expected / 2 < energy_rounding(engine, batch, directions) < 2 * expected


def test_noise_that_is_no_rounding_excuses_nothing() -> None:
    class Noisy(Springs):
        def spoil(self) -> None:
            self.results["energy"] += self.rng.normal(scale=0.01)

    assert error(Noisy) > 10 * LIMIT


def test_both_tasks_have_one_limit() -> None:
    strict: Gate = configured("task=nve", "gate=strict").gate
    assert {metric: strict.criteria[metric].max for metric in LIMITS} == LIMITS
