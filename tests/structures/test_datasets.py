"""Datasets, the molecules in them, and the teacher's labels."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_exp.config.errors import ConfigError
from mlff_exp.distill.labelling import label_structure, label_structures, make_jobs, teacher_calculator
from mlff_exp.distill.molecules import SMALL, Molecule, Split, _described, molecule_library
from mlff_exp.distill.sampling import Sampling, SamplingError, make_conformer, thermal_modes
from mlff_exp.structures.datasets import (
    ORIGINS,
    RESOLUTION,
    VALIDATION,
    Dataset,
    DatasetError,
    quantise,
    reference_energies,
)
from tests.helpers.labels import random_dataset

TINY = Sampling(
    normal_modes=3, rattled=2, stretched=2, md_share=1.0, md_temperatures_k=(300.0,), md_frames=2, md_stride=2,
    dimers=20, water_clusters=1,
)  # fmt: skip
JOBS = make_jobs(["O", "C", "CO"], ["CCl"], ["O", "C"], TINY)
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Counter[str], Path]:
    directory = tmp_path_factory.mktemp("labels")
    return *label_structures(JOBS, TINY, directory, 2), directory


@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_a_dataset_survives_the_disk_and_splitting(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    dataset = random_dataset(seed)
    path = tmp_path_factory.mktemp("dataset") / "set.npz"
    dataset.save(path)
    assert Dataset.load(path).sha256 == dataset.sha256
    first = dataset.names == dataset.names[0]
    parts = [part for part in (first, ~first) if part.any()]
    joined = Dataset.concatenate([dataset.select(part) for part in parts])
    assert sorted(joined.energies) == sorted(dataset.energies)
    order = np.argsort(joined.energies)
    assert (joined.names[order] == dataset.names).all()
    atoms = np.concatenate([np.arange(joined.starts[i], joined.starts[i] + joined.counts[i]) for i in order])
    assert (joined.position_steps[atoms] == dataset.position_steps).all()


def test_every_part_of_a_dataset_changes_its_hash() -> None:
    dataset = random_dataset(1)
    for name in list(Dataset.__dataclass_fields__)[1:]:
        changed = getattr(dataset, name).copy()
        changed.flat[0] += 1
        assert dataclasses.replace(dataset, **{name: changed}).sha256 != dataset.sha256, name


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"nonsense"])
def test_a_broken_dataset_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"broken\.npz is not a dataset") as refused:
        Dataset.load(path)
    assert "pickle" not in str(refused.value)  # NumPy's advice


@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_reference_energies_are_recovered(seed: int) -> None:
    dataset = random_dataset(seed)
    truth = {1: -13.5, 6: -1030.25, 8: -2041.0}
    parts = np.split(dataset.atomic_numbers, dataset.starts[1:])
    energies = np.array([sum(truth[z] for z in part) for part in parts])
    fitted = reference_energies(dataclasses.replace(dataset, energies=energies))
    symbols = {1: "H", 6: "C", 8: "O"}
    np.testing.assert_allclose([sum(fitted[symbols[z]] for z in part) for part in parts], energies, rtol=1e-10)


def test_values_that_16_bits_cannot_hold_are_refused() -> None:
    assert quantise(np.array([0.0014, -30.0])).tolist() == [1, -30000]
    with pytest.raises(ValueError, match=r"33\.000 is more than the 32\.767"):
        quantise(np.array([-33.0]))


@pytest.fixture(scope="module")
def library() -> dict[Split, list[Molecule]]:
    """Takes RDKit six seconds; its tests are in one group, so that one worker makes it."""
    return molecule_library()


@pytest.mark.xdist_group("library")
def test_no_molecule_and_no_scaffold_is_on_both_sides(library: dict[Split, list[Molecule]]) -> None:
    training, validation = library["training"] + library["analogues"], library["validation"]
    assert len(library["training"]) >= 2000
    assert len(library["analogues"]) >= 2000
    assert len(validation) >= 150
    for attribute in ("key", "scaffold", "smiles"):
        shared = {getattr(one, attribute) for one in training} & {getattr(one, attribute) for one in validation}
        assert not shared, f"{attribute}: {sorted(shared)[:5]} are trained on and validated on"
    keys = [one.key for one in training + validation]
    assert len(set(keys)) == len(keys)
    assert all(2 <= one.n_atoms <= 32 for one in training + validation)
    listed = {one.key for one in _described(SMALL.split())}
    assert listed <= {one.key for one in training}


@pytest.mark.xdist_group("library")
def test_the_shipped_validation_set_is_of_unseen_molecules(library: dict[Split, list[Molecule]]) -> None:
    dataset = Dataset.load(VALIDATION)
    unseen = {one.smiles for one in library["validation"]}
    assert set(dataset.molecules) <= unseen
    assert len(dataset.molecules) >= 150
    assert len(dataset) >= 1000
    assert set(dataset.atomic_numbers) == {1, 6, 7, 8, 9, 16, 17}
    assert {ORIGINS[index] for index in dataset.origin} == {"relaxed", "teacher_md"}
    assert np.abs(dataset.forces).max() <= 30


def test_thermal_displacements_have_the_variance_of_equipartition() -> None:
    """A diatomic of two equal masses on a spring k: the variance of its bond at T is kB T / k."""
    from ase import units

    spring, rest = 30.0, 1.1
    atoms = Atoms("N2", [[0, 0, 0], [0, 0, rest]])

    def gradient(positions: np.ndarray) -> np.ndarray:
        bond = positions[1] - positions[0]
        pull = spring * (np.linalg.norm(bond) - rest) * bond / np.linalg.norm(bond)
        return np.concatenate([-pull, pull])

    modes = thermal_modes(gradient, atoms)
    assert len(modes) == 1
    assert (modes[0, 1] - modes[0, 0])[2] ** 2 == pytest.approx(units.kB / spring, rel=1e-4)


def test_a_molecule_without_a_geometry_is_a_named_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdkit.Chem.rdDistGeom.EmbedMolecule", lambda molecule, parameters: -1)
    with pytest.raises(SamplingError, match="no conformer"):
        make_conformer("C", np.random.default_rng(0))


@pytest.mark.slow
def test_labels_are_the_teachers(labelled: tuple[Dataset, Counter[str], Path]) -> None:
    dataset, _, _ = labelled
    assert {ORIGINS[index] for index in dataset.origin} == set(ORIGINS) - {"student_md", "student_exploded"}
    for index in (0, len(dataset) // 2, len(dataset) - 1):
        atoms_of = slice(dataset.starts[index], dataset.starts[index] + dataset.counts[index])
        atoms = Atoms(dataset.atomic_numbers[atoms_of], dataset.positions[atoms_of])
        atoms.calc = teacher_calculator()
        assert atoms.get_potential_energy() == pytest.approx(dataset.energies[index], abs=1e-6)
        np.testing.assert_allclose(atoms.get_forces(), dataset.forces[atoms_of], atol=0.51 * RESOLUTION)


@pytest.mark.slow
def test_killed_labelling_continues_without_loss_or_duplicates(
    labelled: tuple[Dataset, Counter[str], Path], tmp_path: Path
) -> None:
    dataset, failures, whole = labelled
    # Half of the jobs done, one of them half written, in another order: what a kill leaves.
    (tmp_path / "recipe.json").write_bytes((whole / "recipe.json").read_bytes())
    for job in JOBS[::2]:
        (tmp_path / f"{job.name}.npz").write_bytes((whole / f"{job.name}.npz").read_bytes())
    (tmp_path / f"{JOBS[1].name}.npz.partial").write_bytes(b"half")
    again, same_failures = label_structures(JOBS, TINY, tmp_path, 1)
    assert again.sha256 == dataset.sha256
    assert same_failures == failures
    with pytest.raises(ConfigError, match="holds labels of another recipe"):
        label_structures(JOBS, dataclasses.replace(TINY, rattled=7), tmp_path, 1)


@pytest.mark.slow
def test_structures_that_the_teacher_cannot_label_are_counted() -> None:
    failures: Counter[str] = Counter()
    assert label_structure("[H][H]", "rattled", Atoms("H2", [[0, 0, 0], [0, 0, 0.3]]), failures) is None
    assert label_structure("N#N", "rattled", Atoms("N2", [[0, 0, 0], [0, 0, 0.8]]), failures) is None
    assert label_structure("[H][H]", "rattled", Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]), failures) is not None
    assert failures == {"atoms closer than 0.5 Å": 1, "a force above 30 eV/Å": 1}
