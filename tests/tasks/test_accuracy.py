"""`task=accuracy` on sets small enough to check by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT

from mlff_exp.config.errors import ConfigError
from mlff_exp.models import checkpoint
from mlff_exp.models.checkpoint import save_checkpoint
from mlff_exp.models.painn import PaiNN
from mlff_exp.structures.datasets import Dataset, LabelledStructure
from tests.conftest import make_random_model
from tests.helpers.here import run_here, undocumented
from tests.helpers.labels import labelled_by

ACCURACY = ["task=accuracy", "engine=eager", "device=cpu", "batch_size=4", "tracking=offline"]


@pytest.fixture
def own_labels(student: PaiNN, tmp_path: Path) -> Dataset:
    """A dataset with the labels that the shipped student gives a few molecules."""
    dataset = labelled_by(student)
    dataset.save(tmp_path / "own.npz")
    return dataset


def test_against_its_own_labels_only_precision_is_left(own_labels: Dataset, tmp_path: Path) -> None:
    result = run_here(tmp_path / "run", *ACCURACY, f"task.dataset={tmp_path}/own.npz", "precision=fp64")
    metrics = result.metrics
    assert metrics["structures"] == len(own_labels)
    assert metrics["force_rmse_vs_fp64_mev_per_ang"] == 0
    assert metrics["force_rmse_mev_per_ang"] < 0.5  # labels are kept to 1 meV/Å; the student made them in FP32
    assert metrics["force_r2"] > 0.999999
    for part in ("atoms/2-8", "atoms/9-16", "element/H", "element/C", "element/O", "element/N"):
        assert f"force_mae_mev_per_ang/{part}" in metrics
    with (tmp_path / "run" / "accuracy.csv").open() as file:
        rows = {row["part"]: row for row in csv.DictReader(file)}
    assert float(rows["all"]["force_mae_mev_per_ang"]) == pytest.approx(metrics["force_mae_mev_per_ang"], rel=1e-5)
    assert set(result.artifacts) == {"accuracy.csv", "accuracy.png"}
    assert undocumented(result) == set()


@pytest.mark.usefixtures("traced_but_not_compiled")
def test_molecules_of_like_size_share_a_graph(student: PaiNN, tmp_path: Path) -> None:
    """Graphs are traced and not compiled: what counts is how many there are."""
    labelled_by(student, ("H2O", "CH4", "NH3", "C2H6")).save(tmp_path / "own.npz")
    words = [word if not word.startswith("engine=") else "engine=compile" for word in ACCURACY]
    words += [f"task.dataset={tmp_path}/own.npz", "precision=bf16_autocast", "model.checkpoint=student_small"]
    result = run_here(tmp_path / "run", *words)
    assert result.metrics["graph_count"] == 1
    assert 0 < result.metrics["force_relative_rmse_vs_fp64_percent"] < 5


def test_numbers_that_are_not_finite_name_the_structure(
    own_labels: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading such weights is refused, unless they are wild only where the set of labels reaches."""
    monkeypatch.setattr(checkpoint, "refuse_no_force_field", lambda model: None)
    model = make_random_model(n_features=8)
    for layer in (0, 2):  # finite in FP32 each, but not their product
        model.state_dict()[f"readout.{layer}.weight"].mul_(1e25)
    save_checkpoint(model, tmp_path / "wild.safetensors", teacher="none", training_data_sha256="none")
    words = [f"task.dataset={tmp_path}/own.npz", f"model.checkpoint={tmp_path}/wild.safetensors"]
    with pytest.raises(FloatingPointError, match="eager at fp32 gave NaN or infinite") as caught:
        run_here(tmp_path / "run", *ACCURACY, *words)
    assert f"{own_labels.names[0]}: use a wider precision" in str(caught.value)


def test_elements_that_the_model_does_not_know_are_refused(student: PaiNN, tmp_path: Path) -> None:
    dataset = labelled_by(student, ("H2O",))
    dataset.atomic_numbers[dataset.atomic_numbers == 8] = 14
    dataset.save(tmp_path / "silicon.npz")
    with pytest.raises(ConfigError, match=r"holds Si, which the model student was not trained on"):
        run_here(tmp_path / "run", *ACCURACY, f"task.dataset={tmp_path}/silicon.npz")


@pytest.mark.parametrize("distance", [0, 30])  # in units of 0.001 Å
def test_atoms_in_one_place_are_refused_by_number(student: PaiNN, tmp_path: Path, distance: int) -> None:
    dataset = labelled_by(student, ("CH4", "H2O"))
    first = dataset.starts[3]
    dataset.position_steps[first + 2] = dataset.position_steps[first + 1] + [distance, 0, 0]
    dataset.save(tmp_path / "near.npz")
    message = rf"near.npz': in structure 3 \(H2O\) atoms 1 and 2 are 0\.0{distance}0? Å apart; at least 0\.1 Å"
    with pytest.raises(ConfigError, match=message):
        run_here(tmp_path / "run", *ACCURACY, f"task.dataset={tmp_path}/near.npz")


def test_single_atoms_have_no_metrics_of_forces(student: PaiNN, tmp_path: Path) -> None:
    atom = LabelledStructure("[H]", "relaxed", np.array([1]), np.zeros((1, 3), dtype=np.int16), -13.0, np.zeros((1, 3)))
    Dataset.from_structures([atom, atom]).save(tmp_path / "atoms.npz")
    metrics = run_here(tmp_path / "run", *ACCURACY, f"task.dataset={tmp_path}/atoms.npz").metrics
    assert metrics["energy_mae_mev_per_atom"] > 0
    assert not [name for name in metrics if "force" in name]


def test_a_calculator_is_given_the_structures_of_the_set(student: PaiNN, tmp_path: Path) -> None:
    """Also where one has as many atoms as its packed batch has places: C2H6 of eight."""
    dataset = labelled_by(student, ("CH4", "C2H6"))
    dataset.save(tmp_path / "own.npz")
    words = ["task=accuracy", "device=cpu", "batch_size=4", "model=ase", "tracking=offline"]
    result = run_here(
        tmp_path / "run",
        *words,
        "model.calculator._target_=ase.calculators.emt.EMT",
        f"task.dataset={tmp_path}/own.npz",
    )
    emt = []
    for number in range(len(dataset)):
        atoms = dataset.atoms(number)
        atoms.calc = EMT()
        emt.append(atoms.get_potential_energy())
    errors = np.abs(np.array(emt) - dataset.energies) / dataset.counts
    assert result.metrics["energy_mae_mev_per_atom"] == pytest.approx(1000 * errors.mean(), rel=1e-5)
