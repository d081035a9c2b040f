"""Usual tasks of a calculator in ASE, on every engine that this machine has.

One molecule of twelve atoms is behind most cases, so that a compiled engine compiles once for all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLengths
from ase.io import Trajectory, read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS, FIRE, LBFGS
from ase.vibrations import Vibrations

from mlff_exp.calculator import StudentForceFieldCalculator
from tests.conftest import rattled

VARIANTS: dict[str, dict[str, Any]] = {
    "eager": {"use_compile": False},
    "compile": {"compile_mode": "default"},
    "reduce-overhead": {},
    "cuda_graph": {"engine": "cuda_graph"},
    "fused": {"engine": "fused"},
    "fused_fp16": {"engine": "fused", "use_fp16": True},
    "fp16": {"use_fp16": True, "compile_mode": "default"},
    "fp16_eager": {"use_fp16": True, "use_compile": False},
}
ON_CPU = ("eager", "compile")  # reduce-overhead is the same there, and FP16 is refused
# Largest difference from eager FP64: of an energy (eV) and of a force component (eV/Å).
TOLERANCE = {"fp32": (1e-4, 1e-3), "fp16_autocast": (2e-2, 5e-2)}


@pytest.fixture(
    scope="module",
    # In a parallel run one process for each variant, so that it compiles once.
    params=[
        pytest.param(name, marks=[pytest.mark.xdist_group(name), *([] if name in ON_CPU else [pytest.mark.gpu])])
        for name in VARIANTS
    ],
)
def shared(request: pytest.FixtureRequest) -> StudentForceFieldCalculator:
    if request.param not in ON_CPU and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    return StudentForceFieldCalculator("student", **VARIANTS[request.param])


@pytest.fixture
def calculator(shared: StudentForceFieldCalculator) -> StudentForceFieldCalculator:
    """With what it compiled before, and nothing else."""
    shared.reset()
    return shared


@pytest.fixture(scope="module")
def exact() -> StudentForceFieldCalculator:
    return StudentForceFieldCalculator("student", device="cpu", dtype=torch.float64, use_compile=False)


@pytest.fixture
def tolerance(calculator: StudentForceFieldCalculator) -> tuple[float, float]:
    return TOLERANCE[calculator.precision]


@pytest.fixture
def atoms(calculator: StudentForceFieldCalculator) -> Atoms:
    benzene = rattled("C6H6", 1)
    benzene.calc = calculator
    return benzene


def twin(atoms: Atoms, calculator: StudentForceFieldCalculator) -> Atoms:
    other = atoms.copy()
    other.calc = calculator
    return other


def test_energy_and_forces(atoms: Atoms, exact: StudentForceFieldCalculator, tolerance: tuple[float, float]) -> None:
    expected = twin(atoms, exact)
    assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=tolerance[0])
    np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), rtol=0, atol=tolerance[1])


def test_forces_are_those_of_the_energy(atoms: Atoms, calculator: StudentForceFieldCalculator) -> None:
    if calculator.precision != "fp32":
        pytest.skip("the energy of a lower precision is too coarse for differences")
    numerical = calculate_numerical_forces(atoms, eps=0.01, iatoms=[0, 7])
    np.testing.assert_allclose(atoms.get_forces()[[0, 7]], numerical, rtol=0, atol=0.03)


def test_results_are_cached_until_atoms_move(atoms: Atoms, calculator: StudentForceFieldCalculator) -> None:
    energy = atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_potential_energy()
    assert calculator.n_calls == 1
    atoms.positions[3, 1] += 0.05
    assert atoms.get_potential_energy() != energy
    assert calculator.n_calls == 2
    atoms.set_atomic_numbers([1, *atoms.numbers[1:]])
    atoms.get_potential_energy()
    assert calculator.n_calls == 3


def test_moving_and_turning_the_molecule_changes_nothing(atoms: Atoms, tolerance: tuple[float, float]) -> None:
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.rotate(71, (1, 2, 3), center="COM")
    atoms.translate((10, -20, 5))
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=2 * tolerance[0])
    np.testing.assert_allclose(
        np.linalg.norm(atoms.get_forces(), axis=1), np.linalg.norm(forces, axis=1), rtol=0, atol=2 * tolerance[1]
    )


def test_total_force_vanishes(atoms: Atoms) -> None:
    np.testing.assert_allclose(atoms.get_forces().sum(axis=0), 0, atol=1e-9)


@pytest.mark.parametrize("optimizer", [BFGS, LBFGS, FIRE])
def test_same_minimum(atoms: Atoms, exact: StudentForceFieldCalculator, optimizer: type, tolerance: tuple) -> None:
    expected = twin(atoms, exact)
    for each in (atoms, expected):
        assert optimizer(each, logfile=None).run(fmax=0.05 if tolerance[1] > 0.01 else 0.01, steps=200)
    assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=0.002 + tolerance[0])
    np.testing.assert_allclose(
        atoms.get_all_distances()[0, 1:6], expected.get_all_distances()[0, 1:6], rtol=0, atol=0.02
    )


def test_fixed_atoms_stay(atoms: Atoms) -> None:
    before = atoms.positions.copy()
    atoms.set_constraint(FixAtoms([0, 6]))
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=100)
    np.testing.assert_array_equal(atoms.positions[[0, 6]], before[[0, 6]])
    assert np.abs(atoms.positions - before).max() > 0.01


def test_fixed_bonds_keep_their_length_in_dynamics(atoms: Atoms) -> None:
    atoms.set_constraint(FixBondLengths([(0, 6)]))
    length = atoms.get_distance(0, 6)
    thermalize_momenta(atoms, 300, rng=np.random.default_rng(0))
    VelocityVerlet(atoms, 0.5 * units.fs).run(20)
    assert atoms.get_distance(0, 6) == pytest.approx(length, abs=1e-6)


def test_same_trajectory_over_200_steps(
    atoms: Atoms, exact: StudentForceFieldCalculator, calculator: StudentForceFieldCalculator
) -> None:
    thermalize_momenta(atoms, 300, rng=np.random.default_rng(0))
    expected = twin(atoms, exact)
    for each in (atoms, expected):
        VelocityVerlet(each, 0.5 * units.fs).run(200)
    atol = 1e-3 if calculator.precision == "fp32" else 0.02
    np.testing.assert_allclose(atoms.positions, expected.positions, rtol=0, atol=atol)
    assert calculator.n_calls == 201


def test_dynamics_conserves_energy(atoms: Atoms) -> None:
    thermalize_momenta(atoms, 300, rng=np.random.default_rng(1))
    Stationary(atoms)
    total: list[float] = []
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(lambda: total.append(atoms.get_total_energy()), interval=5)
    dynamics.run(200)
    assert np.std(total) / len(atoms) < 1e-3
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-6)


def test_a_thermostat_heats_from_rest(atoms: Atoms) -> None:
    dynamics = Langevin(
        atoms, 0.5 * units.fs, temperature_K=300, friction=0.05 / units.fs, fixcm=False, rng=np.random.default_rng(2)
    )
    dynamics.run(150)
    assert 100 < atoms.get_temperature() < 800


def test_a_trajectory_keeps_energies_and_forces(atoms: Atoms, tmp_path: Path) -> None:
    thermalize_momenta(atoms, 300, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    with Trajectory(tmp_path / "md.traj", "w", atoms) as trajectory:
        dynamics.attach(trajectory.write, interval=5)
        dynamics.run(10)
    frames = read(tmp_path / "md.traj", ":")
    assert len(frames) == 3
    assert frames[-1].get_potential_energy() == atoms.get_potential_energy()
    np.testing.assert_array_equal(frames[-1].get_forces(), atoms.get_forces())


def test_extended_xyz_keeps_energies_and_forces(atoms: Atoms, tmp_path: Path) -> None:
    energy = atoms.get_potential_energy()
    write(tmp_path / "one.extxyz", atoms)
    again = read(tmp_path / "one.extxyz")
    assert isinstance(again.calc, SinglePointCalculator)
    assert again.get_potential_energy() == pytest.approx(energy, abs=1e-6)
    np.testing.assert_allclose(again.get_forces(), atoms.get_forces(), atol=1e-6)


def test_one_calculator_for_two_molecules_in_turn(
    calculator: StudentForceFieldCalculator, exact: StudentForceFieldCalculator, tolerance: tuple[float, float]
) -> None:
    pair = [rattled("C6H6", 1), rattled("CH3CH2OH", 2)]
    expected = [twin(one, exact).get_potential_energy() for one in pair]
    for one in pair:
        one.calc = calculator
    for _ in range(2):
        assert [one.get_potential_energy() for one in pair] == pytest.approx(expected, abs=tolerance[0])
    assert calculator.n_calls == 4


def test_molecules_of_like_size_share_a_graph(calculator: StudentForceFieldCalculator, atoms: Atoms) -> None:
    atoms.get_potential_energy()
    graphs = calculator._engine.compiled_graphs
    for name in ("CH3CH2OH", "CH3COCH3", "CH3CONH2", "C2H6CHOH", "CH3CHO", "C5H5N"):
        other = molecule(name)
        if 9 <= len(other) <= 12:
            calculator.calculate(other)
    assert calculator._engine.compiled_graphs == graphs


@pytest.mark.slow
def test_a_batch_equals_one_by_one(
    calculator: StudentForceFieldCalculator, exact: StudentForceFieldCalculator, tolerance: tuple[float, float]
) -> None:
    if calculator.engine.startswith("compile") and not torch.cuda.is_available():
        pytest.skip("compiles half a minute for one case; test_engine.py compiles batches on a CPU")
    systems = [rattled("C6H6", 1), rattled("CH3CH2OH", 2), rattled("H2O", 3)]
    results = calculator.calculate_batch(systems)
    assert calculator.n_calls == 1
    for one, result in zip(systems, results, strict=True):
        alone = twin(one, exact)
        assert result["energy"] == pytest.approx(alone.get_potential_energy(), abs=tolerance[0])
        np.testing.assert_allclose(result["forces"], alone.get_forces(), rtol=0, atol=tolerance[1])


def test_a_batch_of_one_and_of_none(calculator: StudentForceFieldCalculator, atoms: Atoms) -> None:
    (result,) = calculator.calculate_batch([atoms], properties=("energy",))
    assert set(result) == {"energy"}
    assert result["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert calculator.calculate_batch([]) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda atoms: atoms.positions.__setitem__((2, 0), np.nan), "NaN or infinite for atoms 2"),
        (lambda atoms: atoms.symbols.__setitem__(4, "Fe"), "not trained on Fe; it knows"),
        (lambda atoms: atoms.__delitem__(slice(None)), "empty structure"),
    ],
)
def test_bad_input_is_refused_and_the_calculator_goes_on(
    atoms: Atoms, calculator: StudentForceFieldCalculator, spoil: object, message: str
) -> None:
    good = twin(atoms, calculator)
    spoil(atoms)  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        atoms.get_potential_energy()
    assert np.isfinite(good.get_potential_energy())


@pytest.mark.parametrize("name", ["stress", "dipole", "charges", "magmoms"])
def test_what_it_does_not_have_is_refused(atoms: Atoms, name: str) -> None:
    with pytest.raises(PropertyNotImplementedError):
        atoms.calc.get_property(name, atoms)


def test_warmed_up_it_does_not_compile_again(calculator: StudentForceFieldCalculator, atoms: Atoms) -> None:
    calculator.warmup(atoms)
    compile_s = calculator._engine.compile_s
    assert calculator.n_calls == 0
    atoms.get_forces()
    assert calculator._engine.compile_s == compile_s


def test_timing_statistics(calculator: StudentForceFieldCalculator, atoms: Atoms) -> None:
    for shift in (0.01, 0.02, 0.03):
        atoms.positions[0, 0] += shift
        atoms.get_potential_energy()
    stats = calculator.get_timing_stats()
    assert stats["n_calls"] == 3
    assert stats["avg_time"] == pytest.approx(stats["total_time"] / 3)
    assert stats["total_time"] > 0
    calculator.reset()
    assert calculator.get_timing_stats() == {"n_calls": 0, "avg_time": 0.0, "total_time": 0.0}


def test_a_path_between_two_minima(atoms: Atoms, calculator: StudentForceFieldCalculator) -> None:
    """A hydrogen bent out of the plane and its mirror image."""
    ends = [molecule("C6H6"), molecule("C6H6")]
    for end, height in zip(ends, (0.4, -0.4), strict=True):
        end.positions[6, 2] += height
    images = [ends[0], *(ends[0].copy() for _ in range(3)), ends[1]]
    band = NEB(images, allow_shared_calculator=True, method="improvedtangent")
    band.interpolate()
    for image in images:
        image.calc = calculator
    energies = [image.get_potential_energy() for image in images]
    assert energies[0] == pytest.approx(energies[4], abs=0.02)
    assert energies[2] == min(energies)
    assert np.isfinite(band.get_forces()).all()


def test_vibrations_of_benzene(calculator: StudentForceFieldCalculator, tmp_path: Path) -> None:
    benzene = molecule("C6H6")
    benzene.calc = calculator
    if calculator.precision != "fp32":
        pytest.skip("the forces of a lower precision are too coarse")
    BFGS(benzene, logfile=None).run(fmax=0.002, steps=200)
    vibrations = Vibrations(benzene, name=str(tmp_path / "vib"), delta=0.01)
    vibrations.run()
    frequencies = vibrations.get_frequencies()
    internal = np.sort(frequencies.real)[6:]
    assert (np.abs(frequencies.imag) < 60).all()
    assert 300 < internal[0] < 500  # the softest mode of benzene is at 398 cm⁻¹
    assert 2900 < internal[-1] < 3400  # C–H stretch


def test_it_is_quiet(atoms: Atoms, capsys: pytest.CaptureFixture[str]) -> None:
    atoms.get_forces()
    assert capsys.readouterr() == ("", "")
