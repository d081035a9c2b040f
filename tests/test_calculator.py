"""The ASE calculator."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.stress import voigt_6_to_full_3x3_stress

from mlff_exp.calculator import StudentForceFieldCalculator
from mlff_exp.engines.compiled import CompiledEngine
from mlff_exp.engines.prediction import EngineError, Prediction
from mlff_exp.models.checkpoint import CheckpointError
from mlff_exp.structures.batch import AtomicBatch
from mlff_exp.structures.systems import water_box
from tests.conftest import rattled


def eager(**arguments: object) -> StudentForceFieldCalculator:
    return StudentForceFieldCalculator("student", device="cpu", engine="eager", **arguments)  # type: ignore[arg-type]


def test_energy_and_forces_agree_with_finite_differences() -> None:
    atoms = rattled("CH3CH2OH", 0)
    atoms.calc = eager(dtype=torch.float64)
    forces = atoms.get_forces()
    for atom, axis in ((0, 0), (4, 1), (8, 2)):
        energies = []
        for step in (1e-4, -1e-4):
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.positions[atom, axis] += step
            energies.append(moved.get_potential_energy())
        assert forces[atom, axis] == pytest.approx(-(energies[0] - energies[1]) / 2e-4, abs=1e-5)


def test_counts_evaluations_and_not_cache_hits() -> None:
    atoms = rattled("H2O", 0)
    atoms.calc = eager()
    atoms.get_potential_energy()
    atoms.get_forces()
    assert atoms.calc.n_calls == 1
    atoms.positions += 0.01 * np.arange(9).reshape(3, 3)
    atoms.get_forces()
    assert atoms.calc.n_calls == 2
    stats = atoms.calc.get_timing_stats()
    assert set(stats) == {"n_calls", "avg_time", "total_time"}
    assert stats["n_calls"] == 2
    assert stats["avg_time"] == pytest.approx(stats["total_time"] / 2)
    atoms.calc.reset()
    assert atoms.calc.get_timing_stats() == {"n_calls": 0, "avg_time": 0.0, "total_time": 0.0}


def test_another_gpu_is_the_current_one_during_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calculator, current = eager(), []

    @contextmanager
    def note(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    def engine(batch: AtomicBatch) -> Prediction:
        assert current == [torch.device("cuda:1")]
        return Prediction(torch.zeros(1), torch.zeros(3, 3))

    batch = calculator._batch([molecule("H2O")])
    monkeypatch.setattr(torch.cuda, "device", note)
    monkeypatch.setattr(type(calculator._engine), "__call__", lambda _, batch: engine(batch))
    calculator.device = torch.device("cuda:1")
    calculator._predict(batch)
    assert current == []


def test_batch_of_different_molecules_equals_one_by_one() -> None:
    calculator = eager(dtype=torch.float64)
    systems = [rattled(name, index) for index, name in enumerate(["C6H6", "H2O", "CH3CH2OH", "CO2"])]
    results = calculator.calculate_batch(systems)
    assert calculator.n_calls == 1
    for atoms, result in zip(systems, results, strict=True):
        atoms.calc = calculator
        assert result["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(result["forces"], atoms.get_forces(), atol=1e-9)
    assert set(calculator.calculate_batch(systems, properties=("energy",))[0]) == {"energy"}
    assert calculator.calculate_batch([]) == []
    with pytest.raises(ValueError, match=r"can't give dipole: choose from energy, free_energy, forces"):
        calculator.calculate_batch(systems, properties=("energy", "dipole"))


@pytest.mark.slow
@pytest.mark.usefixtures("traced_but_not_compiled")
def test_mixed_molecules_reuse_few_graphs() -> None:
    """Graphs are traced and not compiled: what counts is how many there are."""
    rng = np.random.default_rng(0)
    elements, sizes = ["H", "C", "N", "O"], rng.integers(1, 33, size=100)
    walk = [Atoms(rng.choice(elements, n), rng.uniform(-4, 4, size=(n, 3))) for n in sizes]
    traced = StudentForceFieldCalculator("student_small", device="cpu", dtype=torch.float64)
    reference = StudentForceFieldCalculator("student_small", device="cpu", dtype=torch.float64, use_compile=False)
    for index, atoms in enumerate(walk):
        (result,) = traced.calculate_batch([atoms])
        if index % 10:
            continue
        (expected,) = reference.calculate_batch([atoms])
        assert result["energy"] == pytest.approx(expected["energy"], abs=1e-8)
        np.testing.assert_allclose(result["forces"], expected["forces"], atol=1e-7, rtol=1e-7)
    assert traced.engine == "compile/reduce-overhead"
    assert traced._engine.compiled_graphs == 8
    for n_systems in (2, 3, 4):
        traced.calculate_batch(walk[:n_systems])
    assert traced._engine.compiled_graphs <= 8 + 2


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "empty structure"),
        (Atoms("HO", positions=[[0, 0, 0], [np.nan, 0, 0]]), "NaN"),
        (Atoms("SiFe", positions=[[0, 0, 0], [0, 0, 2]]), "not trained on Fe, Si; it knows H, C, N, O, F, S, Cl"),
    ],
)
def test_bad_structures_are_refused(atoms: Atoms, message: str) -> None:
    atoms.calc = eager()
    with pytest.raises(ValueError, match=message):
        atoms.get_potential_energy()


def test_stress_agrees_with_finite_strain() -> None:
    box = water_box(8)
    box.rattle(0.02, rng=np.random.default_rng(0))
    box.set_cell(np.add(box.cell, [[0, 0.3, 0], [0, 0, 0.2], [0.1, 0, 0]]), scale_atoms=True)
    box.calc = eager(dtype=torch.float64, enable_stress=True)
    assert "stress" in box.calc.implemented_properties
    with torch.no_grad():  # as energies and forces, whatever the caller does
        stress = voigt_6_to_full_3x3_stress(box.get_stress())
    for i, j in ((0, 0), (1, 2), (2, 0)):
        energies = []
        for step in (1e-5, -1e-5):
            strain = np.eye(3)
            strain[i, j] += step / 2
            strain[j, i] += step / 2
            strained = box.copy()
            strained.set_cell(box.cell @ strain, scale_atoms=True)
            strained.calc = box.calc
            energies.append(strained.get_potential_energy())
        assert stress[i, j] == pytest.approx((energies[0] - energies[1]) / 2e-5 / box.get_volume(), abs=1e-6)


def test_stress_of_a_molecule_is_refused_and_absent_unless_enabled() -> None:
    atoms = molecule("H2O")
    atoms.calc = eager(enable_stress=True)
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises(ValueError, match="periodic in all three directions"):
        atoms.get_stress()
    assert "stress" not in eager().implemented_properties


@pytest.mark.usefixtures("traced_but_not_compiled")
def test_a_compiled_engine_gives_stress_with_energy_and_forces() -> None:
    """In one call, padded to a shape of few; also for several structures, and after a fallback."""
    small = StudentForceFieldCalculator("student_small", device="cpu", dtype=torch.float64, enable_stress=True)
    exact = StudentForceFieldCalculator(
        "student_small", device="cpu", dtype=torch.float64, enable_stress=True, engine="eager"
    )
    box = water_box(8)
    found = []
    for calculator in (small, exact):
        box.calc = calculator
        found.append((box.get_forces(), box.get_stress()))
        assert calculator.n_calls == 1
    (forces, stress), (exact_forces, exact_stress) = found
    np.testing.assert_allclose(forces, exact_forces, rtol=0, atol=1e-9)
    np.testing.assert_allclose(stress, exact_stress, rtol=0, atol=1e-12)
    assert np.abs(exact_stress).max() > 1e-3
    (one,) = exact.calculate_batch([box], ["stress"])
    np.testing.assert_allclose(one["stress"], exact_stress, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="periodic in all three directions"):
        exact.calculate_batch([box, molecule("H2O")], ["energy", "stress"])
    assert set(exact.calculate_batch([box, molecule("H2O")], ["energy"])[1]) == {"energy"}


def test_falls_back_to_eager_with_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(CompiledEngine, "_compile", broken)
    atoms = rattled("H2O", 0)
    atoms.calc = StudentForceFieldCalculator(device="cpu", enable_stress=True)
    assert atoms.calc.engine == "compile/reduce-overhead"
    with caplog.at_level(logging.WARNING):
        energy = atoms.get_potential_energy()
    assert atoms.calc.engine == "eager"
    assert "going on with eager: no C compiler" in caplog.text
    reference = atoms.copy()
    reference.calc = eager()
    # In FP32 the padding of the compiled shape rounds differently.
    assert energy == pytest.approx(reference.get_potential_energy(), abs=1e-4)
    box = water_box(8)
    box.calc = atoms.calc
    assert np.abs(box.get_stress()).max() > 1e-3


@pytest.mark.usefixtures("traced_but_not_compiled")  # compiled for real in tests/integration
def test_compiled_logs_warms_up_and_agrees(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("a.logger.of.the.user")
    with caplog.at_level(logging.INFO, logger=logger.name):
        calculator = StudentForceFieldCalculator(
            device="cpu", compile_mode="default", enable_timing=True, logger=logger
        )
        calculator.warmup(molecule("H2O"))
        assert calculator.n_calls == 0
        atoms = rattled("H2O", 0)
        atoms.calc = calculator
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    assert [record.name for record in caplog.records if "compil" in record.message] == [logger.name] * 2
    assert "compiled compile/default in" in caplog.text
    assert "1 structures in" in caplog.text
    reference = atoms.copy()
    reference.calc = eager()
    assert energy == pytest.approx(reference.get_potential_energy(), abs=1e-4)
    np.testing.assert_allclose(forces, reference.get_forces(), atol=1e-4)


def test_fp16_on_a_cpu_is_fp32_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        calculator = StudentForceFieldCalculator(device="cpu", use_fp16=True, use_compile=False)
    assert calculator.precision == "fp32"
    assert "going on in FP32" in caplog.text


def test_flags_and_words_choose_the_engine() -> None:
    assert StudentForceFieldCalculator(device="cpu", use_compile=False).engine == "eager"
    assert StudentForceFieldCalculator(device="cpu").engine == "compile/reduce-overhead"
    words = StudentForceFieldCalculator(device="cpu", engine="eager", precision="bf16_autocast")
    assert (words.engine, words.precision) == ("eager", "bf16_autocast")
    with pytest.raises(EngineError, match="needs a CUDA GPU"):
        StudentForceFieldCalculator(device="cpu", engine="cuda_graph")
    with pytest.raises(ValueError, match="is not one of: fp64, fp32"):
        StudentForceFieldCalculator(device="cpu", precision="fp8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"dtype=torch.float16 is not one of"):
        StudentForceFieldCalculator(device="cpu", dtype=torch.float16)
    with pytest.raises(CheckpointError, match="neither a file nor one of: student"):
        StudentForceFieldCalculator("nowhere")


def test_repr_names_class_and_checkpoint() -> None:
    assert repr(eager()) == (
        "StudentForceFieldCalculator(checkpoint='student.safetensors', engine='eager', precision='fp32', device='cpu')"
    )


def test_relaxation_and_dynamics_with_ase() -> None:
    atoms = rattled("NH3", 0)
    atoms.calc = eager(dtype=torch.float64)
    assert BFGS(atoms, logfile=None).run(fmax=0.01, steps=100)
    atoms.positions += np.random.default_rng(0).normal(scale=0.02, size=(4, 3))
    start = atoms.get_total_energy()
    VelocityVerlet(atoms, timestep=0.02).run(50)
    assert atoms.get_total_energy() == pytest.approx(start, abs=1e-4)


def test_no_global_side_effects() -> None:
    before = (torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype(), torch.is_grad_enabled())
    atoms = rattled("H2O", 0)
    atoms.calc = eager()
    atoms.get_forces()
    assert before == (torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype(), torch.is_grad_enabled())


def test_the_free_energy_is_the_energy() -> None:
    atoms = rattled("H2O", 0)
    atoms.calc = eager()
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert "free_energy" in atoms.calc.implemented_properties


def test_a_batch_may_be_a_generator_or_a_single_structure() -> None:
    calculator, systems = eager(), [rattled("H2O", 0), rattled("CH4", 1)]
    expected = calculator.calculate_batch(systems)
    found = calculator.calculate_batch((atoms for atoms in systems), (name for name in ("energy", "free_energy")))
    assert [one["energy"] for one in found] == [one["free_energy"] for one in found]
    assert [one["energy"] for one in found] == [one["energy"] for one in expected]
    (single,) = calculator.calculate_batch(systems[0], "energy")
    assert single == {"energy": pytest.approx(expected[0]["energy"], abs=1e-5)}
    with pytest.raises(ValueError, match="can't give nergy: choose from energy, free_energy, forces"):
        calculator.calculate_batch(systems, "nergy")
    with pytest.raises(TypeError, match=r"takes ase\.Atoms, and number 1 is str"):
        calculator.calculate_batch([systems[0], "H2O"])


def test_numerical_derivatives_of_ase_work() -> None:
    atoms = water_box(8)
    atoms.calc = eager(dtype=torch.float64, enable_stress=True)
    np.testing.assert_allclose(calculate_numerical_stress(atoms, eps=1e-4), atoms.get_stress(), atol=1e-5)
    few = rattled("H2O", 0)
    few.calc = eager(dtype=torch.float64)
    np.testing.assert_allclose(calculate_numerical_forces(few, eps=1e-4), few.get_forces(), atol=1e-5)


def pickled(calculator: StudentForceFieldCalculator) -> StudentForceFieldCalculator:
    """Return the copy of a calculator that a process of a pool gets."""
    other: StudentForceFieldCalculator = ForkingPickler.loads(ForkingPickler.dumps(calculator))
    return other


def test_a_calculator_can_be_copied() -> None:
    atoms = rattled("H2O", 0)
    atoms.calc = eager(dtype=torch.float64)
    energy = atoms.get_potential_energy()
    for other in (copy.deepcopy(atoms.calc), copy.copy(atoms.calc), pickled(atoms.calc)):
        assert (other.engine, other.precision, other.n_calls) == ("eager", "fp64", 0)
        assert other.get_potential_energy(atoms) == energy
    assert atoms.calc.n_calls == 1


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "CPU", "", "mps", "meta"])
def test_a_device_that_is_none_is_named(device: str) -> None:
    with pytest.raises(ValueError, match=rf"device='{device}' is not one of those of this machine: cpu"):
        StudentForceFieldCalculator("student_small", device=device)


def test_atoms_in_one_place_are_named() -> None:
    with pytest.raises(ValueError, match=r"atoms 0 and 1 are 0\.000 Å apart"):
        Atoms("OH2", [(0, 0, 0), (0, 0, 0), (0, 0, 1)], calculator=eager()).get_potential_energy()


def test_a_charge_is_refused_and_can_be_left_out() -> None:
    atoms = molecule("H2O")
    neutral = eager().get_potential_energy(atoms)
    atoms.info["charge"] = -1
    with pytest.raises(ValueError, match=r"a total charge of -1.*; ignore_charge=True takes it for that"):
        eager().get_potential_energy(atoms)
    assert eager(ignore_charge=True).get_potential_energy(atoms) == neutral
