"""From the teacher's labels to a checkpoint."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_exp import checkpoint, data, training
from mlff_exp.batch import collate
from mlff_exp.data import Dataset, Frame, Sampling
from mlff_exp.engine import energy_and_forces
from mlff_exp.painn import PaiNN
from tests.test_cli import INFERENCE, mlff_exp, results

TINY = Sampling(md_temperatures_k=(300.0,), md_frames=2, md_stride=2, rattled=6, scaled=2, dimers=0, water_clusters=1)


@pytest.fixture(scope="module")
def labelled() -> Dataset:
    return data.generate(["H2O", "CH4"], TINY, 2)


def random_dataset(seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(int(rng.integers(1, 30))):
        n_atoms = int(rng.integers(1, 6))
        positions = rng.normal(scale=2, size=(n_atoms, 3)).astype(np.float32)
        frames.append(Frame(f"m{index % 3}", rng.choice([1, 6, 8], n_atoms), positions, float(index), 0.0 * positions))
    return Dataset.from_frames(frames)


@pytest.mark.slow
def test_labels_are_the_teachers_and_do_not_depend_on_the_workers(labelled: Dataset) -> None:
    assert data.generate(["H2O", "CH4"], TINY, 1).sha256 == labelled.sha256
    assert set(labelled.names) == {"H2O", "CH4", "water cluster"}
    start, count = labelled.starts[3], labelled.counts[3]
    atoms = molecule(str(labelled.names[3]))
    atoms.positions = labelled.positions[start : start + count]
    atoms.calc = data.teacher_calculator()
    assert atoms.get_potential_energy() == pytest.approx(labelled.energies[3], abs=1e-6)
    np.testing.assert_allclose(atoms.get_forces(), labelled.forces[start : start + count], atol=1e-5)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_reference_energies_are_recovered(seed: int) -> None:
    dataset = random_dataset(seed)
    truth = {1: -13.5, 6: -1030.25, 8: -2041.0}
    energies = np.array([sum(truth[z] for z in part) for part in np.split(dataset.atomic_numbers, dataset.starts[1:])])
    whole = Dataset(**{**vars(dataset), "energies": energies})
    fitted = data.reference_energies(whole)
    symbols = {1: "H", 6: "C", 8: "O"}
    sums = [sum(fitted[symbols[z]] for z in part) for part in np.split(dataset.atomic_numbers, dataset.starts[1:])]
    np.testing.assert_allclose(sums, energies, rtol=1e-10)


@given(seed=st.integers(0, 2**32 - 1), atoms_per_step=st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_an_epoch_holds_every_structure_once(seed: int, atoms_per_step: int) -> None:
    dataset = random_dataset(seed)
    batches = training.EqualSizeBatches(dataset, 5.0, atoms_per_step, torch.device("cpu"))
    seen = []
    for batch, energies, forces in batches.epoch(np.random.default_rng(seed)):
        assert len(energies) == 1 or len(forces) <= atoms_per_step
        assert bool(batch.is_atom.all())
        seen += energies.tolist()
    assert sorted(seen) == list(range(len(dataset)))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_a_dataset_survives_the_disk(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    dataset = random_dataset(seed)
    path = tmp_path_factory.mktemp("dataset") / "set.npz"
    dataset.save(path)
    assert Dataset.load(path).sha256 == dataset.sha256
    parts = [dataset.select(dataset.names == name) for name in np.unique(dataset.names)]
    assert sum(len(part) for part in parts) == len(dataset)
    assert sum(part.counts.sum() for part in parts) == len(dataset.positions)


def test_a_student_has_no_error_against_its_own_labels(random_model: PaiNN) -> None:
    frames = []
    for name in ("H2O", "CH4", "H2O", "C6H6"):
        atoms = molecule(name)
        energy, forces = energy_and_forces(random_model, collate([atoms], 5.0), "fp64")
        frames.append(Frame(name, atoms.numbers, atoms.positions.astype(np.float32), float(energy), forces.numpy()))
    errors = training.evaluate(random_model, Dataset.from_frames(frames), torch.device("cpu"))
    assert errors.energy_mae_mev_per_atom < 0.1  # positions and forces are stored in FP32
    assert errors.force_rmse_mev_per_ang < 0.1
    assert errors.force_r2 == pytest.approx(1, abs=1e-6)


def distill(directory: Path, held_out: str) -> subprocess.CompletedProcess[str]:
    return mlff_exp(
        directory, "task=distill", "task.molecules=[H2O,CH4,CH3OH,NH3]", f"task.held_out=[{held_out}]",
        "task.md_temperatures_k=[300]", "task.md_frames=3", "task.rattled=10", "task.scaled=2", "task.dimers=0",
        "task.water_clusters=0", "task.n_features=16", "task.n_interactions=1", "task.steps=150", "task.log_every=50",
        "task.learning_rate=5e-3",
        "device=cpu", "tracking=offline",
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_trains_a_checkpoint_that_runs(tmp_path: Path) -> None:
    finished = distill(tmp_path, "H2O")
    assert finished.returncode == 0, finished.stderr
    (result,) = results(tmp_path)
    losses = [loss for _, loss in result.series["loss"]]
    assert losses[-1] < 0.8 * losses[0]
    assert 0 < result.metrics["force_mae_mev_per_ang"] < result.metrics["force_rmse_mev_per_ang"]
    (path,) = tmp_path.glob("outputs/**/student.safetensors")
    loaded = checkpoint.load(str(path))
    assert loaded.header.training_data_sha256 == result.tags["dataset.sha256"]
    assert loaded.weights_sha256 == result.tags["checkpoint.sha256"]
    run = mlff_exp(tmp_path, *INFERENCE, f"model.checkpoint={path}", "tracking=offline")
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_held_out_molecules_of_elements_that_are_not_trained_on_are_refused(tmp_path: Path) -> None:
    finished = distill(tmp_path, "NH3")
    assert finished.returncode == 2
    assert "task.held_out: the model was not trained on N; it knows H, C, O" in finished.stdout + finished.stderr
