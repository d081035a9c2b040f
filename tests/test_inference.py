"""What `task=inference` asserts of an engine that it times; whole runs are in test_cli.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ase import Atoms

from mlff_exp.batch import AtomicBatch, collate
from mlff_exp.engine import EagerEngine
from mlff_exp.painn import PaiNN
from mlff_exp.prediction import Prediction
from mlff_exp.tasks.inference import _Workload
from tests.conftest import rattled
from tests.here import run_here, undocumented

CPU = torch.device("cpu")


class Cached(EagerEngine):
    """Evaluates once."""

    kept: Prediction | None = None

    def __call__(self, batch: AtomicBatch) -> Prediction:
        self.kept = self.kept or super().__call__(batch)
        return self.kept


def test_what_comes_from_a_cache_is_not_believed(random_model: PaiNN) -> None:
    batch = collate([rattled("H2O", 0), rattled("CH4", 1)], 5.0)
    _Workload(EagerEngine(random_model, "fp64", CPU), batch, 0).check_evaluated(0)
    with pytest.raises(RuntimeError, match="eager gave the same forces at other positions: they came from a cache"):
        _Workload(Cached(random_model, "fp64", CPU), batch, 0).check_evaluated(0)


def test_an_atom_that_is_alone_feels_the_same_everywhere(random_model: PaiNN) -> None:
    _Workload(EagerEngine(random_model, "fp64", CPU), collate([Atoms("O")], 5.0), 0).check_evaluated(0)


def test_samples_that_no_evaluation_stands_behind_are_refused(random_model: PaiNN) -> None:
    workload = _Workload(EagerEngine(random_model, "fp64", CPU), collate([rattled("H2O", 0)], 5.0), 0)
    for number in range(3):
        workload.call(number)
    with pytest.raises(RuntimeError, match="4 samples of eager were taken of only 3 evaluations"):
        workload.check_evaluated(4)
    workload.check_evaluated(3)


def test_an_engine_that_is_named_is_timed_beside_it(tmp_path: Path) -> None:
    words = ["task=inference", "engine=eager", "model.checkpoint=student_small", "system=water", "device=cpu"]
    result = run_here(tmp_path, *words, "task.min_calls=10", "task.min_time_s=0.01", "task.beside=[eager]")
    assert 0.5 < result.metrics["speedup_vs_eager"] < 2
    assert result.metrics["speedup_vs_eager_ci_low"] <= result.metrics["speedup_vs_eager_ci_high"]
    assert undocumented(result) == set()
