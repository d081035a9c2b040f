"""Charge, spin and other properties of a structure reach ASE calculators; a student refuses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.io import read

from mlff_exp.config.config import Config
from mlff_exp.config.errors import ConfigError
from mlff_exp.config.systems import FileSystem
from mlff_exp.distill.labelling import teacher_calculator
from mlff_exp.dynamics.recording import Trajectory
from mlff_exp.dynamics.verlet import Dynamics
from mlff_exp.engines.ase import AseEngine, EngineCalculator
from mlff_exp.engines.options import EagerOptions
from mlff_exp.models.checkpoint import load_checkpoint
from mlff_exp.models.loading import LoadedModel
from mlff_exp.structures.batch import collate
from mlff_exp.structures.electrons import read_electrons, refuse_charge_and_spin
from mlff_exp.structures.systems import build_systems
from mlff_exp.tasks.inference import make_batch
from mlff_exp.tasks.nve_files import frame_files
from mlff_exp.tasks.options import InferenceTask
from mlff_exp.tasks.setup import ModelUnderTest, described_systems
from tests.helpers.structures import CASES, WATER, three_frames


def subject(loaded: LoadedModel | None = None) -> ModelUnderTest:
    return ModelUnderTest(AseEngine(EMT()), loaded, torch.device("cpu"))


@pytest.fixture(scope="module")
def student() -> ModelUnderTest:
    loaded = load_checkpoint("student_small")
    return subject(LoadedModel(loaded.model, loaded.weights_sha256))


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("charge=1", r"H2O has a total charge of \+1, and the model knows neither charge nor spin"),
        ("total_charge=-2", "a total charge of -2"),
        ("spin=3", "2 unpaired electrons"),
        ("multiplicity=2 charge=1", r"a total charge of \+1 and 1 unpaired electrons"),
        ("charge=odd", "charge='odd' is no number"),
        ("spin=0.5", "spin=0.5 is no multiplicity"),
        ("spin=3 multiplicity=1", "contradicting values for the number of unpaired electrons: spin 2, multiplicity 0"),
        ("Properties=species:S:1:pos:R:3:initial_charges:R:1", r"a total charge of \+1"),
        ("Properties=species:S:1:pos:R:3:charge:R:1", r"a total charge of \+1"),
        (
            "charge=-1 Properties=species:S:1:pos:R:3:initial_charges:R:1",
            "contradicting values for the total charge: charge -1, initial_ch",
        ),
        ("Properties=species:S:1:pos:R:3:initial_magmoms:R:1", "1 unpaired electrons"),
    ],
)
def test_a_student_refuses_charge_and_spin(tmp_path: Path, student: ModelUnderTest, comment: str, message: str) -> None:
    path, last = tmp_path / "ion.xyz", [" 1.0", " 0.0", " 0.0"] if "Properties" in comment else ["", "", ""]
    path.write_text("3\n{}\nO 0 0 0{}\nH 0 0 1{}\nH 0 1 0{}\n".format(comment, *last))
    with pytest.raises(ConfigError, match=rf"ion.xyz': .*{message}"):
        described_systems(Config(engine=EagerOptions(), system=FileSystem(path=str(path))), student)


def test_moments_that_cancel_are_moments(student: ModelUnderTest) -> None:
    atoms = molecule("H2O")
    atoms.set_initial_magnetic_moments([0, 1, -1])
    with pytest.raises(ValueError, match="H2O has magnetic moments"):
        refuse_charge_and_spin(atoms)


def test_the_charge_of_a_file_can_be_left_out(student: ModelUnderTest) -> None:
    path = str(CASES / "ammonium.extxyz")
    with pytest.raises(ConfigError, match=r"charge of \+1.*; system.ignore_charge=true takes it for that"):
        described_systems(Config(engine=EagerOptions(), system=FileSystem(path=path)), student)
    config = Config(engine=EagerOptions(), system=FileSystem(path=path, ignore_charge=True))
    (atoms,) = described_systems(config, student).values()
    assert read_electrons(atoms).is_plain


@pytest.mark.parametrize("comment", ["charge=0 spin=1", "spin=0", "total_charge=0.0 multiplicity=1", ""])
def test_a_neutral_singlet_is_taken(tmp_path: Path, student: ModelUnderTest, comment: str) -> None:
    (tmp_path / "water.xyz").write_text(WATER.format(comment))
    assert described_systems(
        Config(engine=EagerOptions(), system=FileSystem(path=str(tmp_path / "water.xyz"))), student
    )


@pytest.mark.parametrize(
    "info",
    [
        *({key: value} for key in ("S", "s", "ms", "M_s") for value in (1, 0.5, "1/2", -1)),
        *({"comment": text} for text in ("water, S = 1", "2S+1=3", "2S: 2", "ms: 1/2", "first triplet")),
        *({key: 2} for key in ("2S+1", "2Ms", "smult", "S_total", "S_squared")),
        {"S:": True, "1": True},
        {"C": 0, "S": 1},
    ],
)
def test_spin_quantum_numbers_are_refused(info: dict[str, Any]) -> None:
    atoms = molecule("H2O")
    atoms.info = info
    with pytest.raises(ValueError, match="spin"):
        refuse_charge_and_spin(atoms)


@pytest.mark.parametrize(
    "info",
    [
        *({key: value} for key in ("S", "ms") for value in (0, "0", 0.0)),
        {"2S": 0},
        *({"comment": text} for text in ("water, S = 0", "2S+1=1", "C: 1 H: 4 S: 1", "singlet", "time in s: 1")),
        {"2S+1": 1},
        {"S": 32.06},  # a mass
        {"S": 188.8, "T": 300},  # an entropy
        {"H": 2, "S": 1},  # a composition
        {"ms": True},  # a unit
    ],
)
def test_symbols_of_spin_may_mean_something_else(info: dict[str, Any]) -> None:
    atoms = molecule("H2O")
    atoms.info = info
    refuse_charge_and_spin(atoms)


def test_values_of_any_type_are_judged() -> None:
    atoms = molecule("H2O")
    atoms.info = {
        "spins": None,
        "magnetic": {},
        "charge_words": ["none", ["no"]],
        "rotation": np.eye(3),
        "tags": ["a", "b"],
    }
    assert read_electrons(atoms).is_plain
    for value in (["none", ["doublet"]], np.array(["doublet"]), {"charge": 1}, object()):
        atoms.info["my_charges"] = value
        with pytest.raises(ValueError, match="tells of charge or spin"):
            read_electrons(atoms)


@pytest.mark.parametrize("given", ["charge=1 spin=1", "charge=1", "initial_charges"])
def test_the_teacher_knows_the_charge(tmp_path: Path, given: str) -> None:
    pytest.importorskip("tblite")
    lines = (CASES / "ammonium.extxyz").read_text().splitlines()
    column, said = ("initial_charges", "") if given == "initial_charges" else ("left", given)
    lines[1] = f'Properties=species:S:1:pos:R:3:{column}:R:1 {said} pbc="F F F"'
    (tmp_path / "ammonium.extxyz").write_text("\n".join(lines) + "\n")
    (atoms,) = build_systems(FileSystem(path=str(tmp_path / "ammonium.extxyz"))).values()
    charged = teacher_calculator()
    charged.set(charge=1)
    expected = Atoms(atoms.numbers, atoms.positions, calculator=charged).get_potential_energy()

    engine = AseEngine(teacher_calculator())
    batch = collate([atoms, molecule("H2O"), atoms], 5.0)
    found = engine(batch.with_positions(batch.positions).to("cpu"))
    assert found.energy[0].item() == pytest.approx(expected, abs=1e-6)
    assert found.energy[2].item() == pytest.approx(expected, abs=1e-6)
    moving = atoms.copy()
    moving.calc = EngineCalculator(engine)
    assert moving.get_potential_energy() == pytest.approx(expected, abs=1e-6)


def test_the_teacher_knows_the_spin(tmp_path: Path) -> None:
    pytest.importorskip("tblite")
    (tmp_path / "oxygen.xyz").write_text("2\nspin=3\nO 0 0 0\nO 0 0 1.2\n")
    (atoms,) = build_systems(FileSystem(path=str(tmp_path / "oxygen.xyz"))).values()
    triplet = teacher_calculator()
    triplet.set(multiplicity=3)
    expected = Atoms(atoms.numbers, atoms.positions, calculator=triplet).get_potential_energy()
    assert AseEngine(teacher_calculator())(collate([atoms], 5.0)).energy.item() == pytest.approx(expected, abs=1e-6)


def test_a_calculator_sees_all_of_a_structure() -> None:
    seen: list[Atoms] = []

    class Watching(EMT):
        def calculate(self, atoms: Atoms, *arguments: object) -> None:
            seen.append(atoms.copy())
            super().calculate(atoms, *arguments)

    atoms = molecule("H2O")
    atoms.set_tags([1, 2, 3])
    atoms.info["solvent"] = "water"
    atoms.set_initial_magnetic_moments([0, 1, -1])
    batch = collate([atoms], 5.0)
    AseEngine(Watching())(batch.with_positions(batch.positions + 1))
    assert seen[0].get_tags().tolist() == [1, 2, 3]
    assert seen[0].info == {"solvent": "water"}
    assert seen[0].get_initial_magnetic_moments().tolist() == [0, 1, -1]
    np.testing.assert_allclose(seen[0].positions, atoms.positions + 1)


def test_a_batch_is_filled_with_the_frames_in_turn(tmp_path: Path) -> None:
    path = three_frames(tmp_path / "three.extxyz")
    system = FileSystem(path=str(path), index="all")
    config = Config(task=InferenceTask(), engine=EagerOptions(), system=system, batch_size=5)
    batch = make_batch(config, subject(), 5)
    lengths = [float((one[0] - one[1]).norm()) for one in batch.per_system(batch.positions)]
    assert lengths == pytest.approx([1.0, 1.1, 1.2, 1.0, 1.1])


def test_frames_keep_masses_charge_and_spin(tmp_path: Path) -> None:
    (start,) = build_systems(FileSystem(path=str(CASES / "labelled.extxyz"))).values()
    start.set_masses([12, 1, 1, 1, 2])
    velocities = np.arange(30.0).reshape(2, 1, 5, 3)
    moved = np.stack([start.positions, start.positions + 0.1])[:, None]
    ones = np.ones((2, 1))
    trajectory = Trajectory(
        np.arange(2), np.arange(2.0), ones, ones, ones, ones, ones, ones, moved, velocities, blow_up=None
    )
    dynamics = Dynamics(AseEngine(EMT()), [start], 0.5, names=["POSCAR, replica 0"])
    ((name, write_file),) = frame_files(dynamics, trajectory, ["POSCAR"], 1).items()
    write_file(tmp_path / name)
    frames = read(tmp_path / name, ":", format="extxyz")
    for index, frame in enumerate(frames):
        np.testing.assert_allclose(frame.positions, moved[index, 0], atol=1e-7)
        np.testing.assert_allclose(frame.get_velocities(), velocities[index, 0], atol=1e-7)
        assert set(frame.arrays) == {"numbers", "positions", "momenta", "masses"}
        assert not frame.info
        assert frame.get_potential_energy() == 1.0
