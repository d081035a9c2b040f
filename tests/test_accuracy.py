"""`task=accuracy` on sets small enough to check by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mlff_exp import checkpoint
from mlff_exp.data import Dataset
from mlff_exp.painn import PaiNN
from tests.conftest import make_random_model
from tests.test_cli import mlff_exp, results
from tests.test_training import labelled_by

ACCURACY = ["task=accuracy", "engine=eager", "device=cpu", "batch_size=4", "tracking=offline"]


@pytest.fixture
def own_labels(student: PaiNN, tmp_path: Path) -> Dataset:
    """What the shipped student itself says of a few molecules, beside it on disk."""
    dataset = labelled_by(student)
    dataset.save(tmp_path / "own.npz")
    return dataset


def test_against_its_own_labels_only_precision_is_left(own_labels: Dataset, tmp_path: Path) -> None:
    finished = mlff_exp(tmp_path, *ACCURACY, "task.dataset=own.npz", "precision=fp64")
    assert finished.returncode == 0, finished.stderr
    (result,) = results(tmp_path)
    metrics = result.metrics
    assert metrics["structures"] == len(own_labels)
    assert metrics["force_rmse_vs_fp64_mev_per_ang"] == 0
    assert metrics["force_rmse_mev_per_ang"] < 0.5  # labels are kept to 1 meV/Å; the student made them in FP32
    assert metrics["force_r2"] > 0.999999
    for part in ("atoms/2-8", "atoms/9-16", "element/H", "element/C", "element/O", "element/N"):
        assert f"force_mae_mev_per_ang/{part}" in metrics
    with next(tmp_path.glob("outputs/**/accuracy.csv")).open() as file:
        rows = {row["part"]: row for row in csv.DictReader(file)}
    assert float(rows["all"]["force_mae_mev_per_ang"]) == pytest.approx(metrics["force_mae_mev_per_ang"], rel=1e-5)
    assert set(result.artifacts) == {"accuracy.csv", "accuracy.png"}


@pytest.mark.slow
def test_a_compiled_engine_needs_few_graphs(own_labels: Dataset, tmp_path: Path) -> None:
    words = [word if not word.startswith("engine=") else "engine=compile" for word in ACCURACY]
    finished = mlff_exp(tmp_path, *words, "task.dataset=own.npz", "precision=bf16_autocast")
    assert finished.returncode == 0, finished.stderr
    (result,) = results(tmp_path)
    assert result.metrics["graph_count"] == 2
    assert 0 < result.metrics["force_relative_rmse_vs_fp64_percent"] < 5


def test_numbers_that_are_not_finite_name_the_structure(own_labels: Dataset, tmp_path: Path) -> None:
    model = make_random_model(n_features=8)
    for layer in (0, 2):  # finite in FP32 each, but not their product
        model.readout[layer].weight.data.mul_(1e25)
    checkpoint.save(model, tmp_path / "wild.safetensors", teacher="none", training_data_sha256="none")
    finished = mlff_exp(tmp_path, *ACCURACY, "task.dataset=own.npz", "model.checkpoint=wild.safetensors")
    assert finished.returncode == 1
    (result,) = results(tmp_path)
    assert result.failure is not None
    assert result.failure.kind == "FloatingPointError"
    assert "eager at fp32 gave NaN or infinite" in result.failure.message
    assert f"{own_labels.names[0]}: use a wider precision" in result.failure.message


def test_elements_that_the_model_does_not_know_are_refused(student: PaiNN, tmp_path: Path) -> None:
    dataset = labelled_by(student, ("H2O",))
    dataset.atomic_numbers[dataset.atomic_numbers == 8] = 14
    dataset.save(tmp_path / "silicon.npz")
    finished = mlff_exp(tmp_path, *ACCURACY, "task.dataset=silicon.npz")
    assert finished.returncode == 2
    assert "holds Si, which model.checkpoint='student' was not trained on" in finished.stdout + finished.stderr
