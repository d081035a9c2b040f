"""The shipped weights: symmetries, forces and stability, on molecules that they were not trained on."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.data import covalent_radii
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mlff_exp.calculator import StudentForceFieldCalculator
from mlff_exp.config.checkpoints import shipped_checkpoints
from mlff_exp.config.systems import N_UNSEEN
from mlff_exp.engines.eager import EagerEngine, energy_and_forces
from mlff_exp.measure.differences import slope_errors
from mlff_exp.models.checkpoint import load_checkpoint
from mlff_exp.models.painn import PaiNN
from mlff_exp.structures.batch import collate
from mlff_exp.structures.datasets import VALIDATION, Dataset
from mlff_exp.structures.systems import unseen_molecule

# Largest difference of energies per atom (eV) and of forces (eV/Å) that rounding explains.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
# Step of finite differences (Å) and largest difference from the force (eV/Å): an FP32 energy is coarse.
# Steps so short that few cross the cutoff, where the third derivative jumps.
DIFFERENCES = {torch.float64: (3e-4, 1e-5), torch.float32: (1e-2, 5e-3)}
TEMPERATURE_K, DURATION_PS, TIMESTEP_FS = 500.0, 5.0, 1.0
EVERY = 10  # molecule of the validation set
BROKEN_BOND_ANG = 0.5

students = pytest.mark.parametrize("name", shipped_checkpoints())
dtypes = pytest.mark.parametrize("dtype", list(TOLERANCE))
few = settings(max_examples=8, deadline=None)
seeds = st.integers(0, 2**32 - 1)


@functools.cache
def model(name: str, dtype: torch.dtype) -> PaiNN:
    loaded = load_checkpoint(name).model
    assert isinstance(loaded, PaiNN)
    return copy.deepcopy(loaded).cast(dtype)


@functools.cache
def validation_set() -> Dataset:
    return Dataset.load(VALIDATION)


def unseen(seed: int) -> Atoms:
    return validation_set().atoms(seed % len(validation_set()))


def predict(student: PaiNN, atoms: Atoms) -> tuple[float, np.ndarray]:
    energy, forces = energy_and_forces(student, collate([atoms], student.architecture.cutoff), "fp64")
    return energy.item(), forces.numpy()


@students
@dtypes
@few
@given(seed=seeds)
def test_symmetries(name: str, dtype: torch.dtype, seed: int) -> None:
    atoms, rng = unseen(seed), np.random.default_rng(seed)
    matrix = Rotation.random(rng=rng).as_matrix() * rng.choice([-1, 1])
    order = rng.permutation(len(atoms))
    moved = atoms[order]
    moved.positions = moved.positions @ matrix.T + rng.normal(scale=10, size=3)
    energy, forces = predict(model(name, dtype), atoms)
    moved_energy, moved_forces = predict(model(name, dtype), moved)
    where = f"{atoms.symbols} turned by {matrix} in the order {order}"
    assert abs(moved_energy - energy) / len(atoms) < TOLERANCE[dtype], where
    np.testing.assert_allclose(moved_forces, forces[order] @ matrix.T, rtol=0, atol=TOLERANCE[dtype], err_msg=where)


@students
@dtypes
@few
@given(seed=seeds)
def test_forces_are_the_gradient_of_the_energy(name: str, dtype: torch.dtype, seed: int) -> None:
    atoms, rng = unseen(seed), np.random.default_rng(seed)
    step, tolerance = DIFFERENCES[dtype]
    direction = torch.from_numpy(rng.normal(size=atoms.positions.shape))
    student = model(name, dtype)
    engine, batch = EagerEngine(student, "fp64", torch.device("cpu")), collate([atoms], student.architecture.cutoff)
    assert slope_errors(engine, batch, direction / direction.norm(), step) < tolerance, str(atoms.symbols)


# One process for all of them: calls this short only wait for each other where processes share a GPU.
@pytest.mark.long
@students
def test_unseen_molecules_stay_intact(name: str) -> None:
    calculator = StudentForceFieldCalculator(name, engine="cuda_graph" if torch.cuda.is_available() else "compile")
    found = [what_broke(unseen_molecule(number), calculator) for number in range(0, N_UNSEEN, EVERY)]
    assert not any(found), "\n".join(filter(None, found))


def what_broke(atoms: Atoms, calculator: StudentForceFieldCalculator) -> str | None:
    """NVE with ASE: a bond changed its length by much, energy was not conserved, or the temperature ran away."""
    rng = np.random.default_rng(0)
    calculator.reset()
    atoms.calc = calculator
    # From a minimum half of the kinetic energy becomes potential.
    thermalize_momenta(atoms, 2 * TEMPERATURE_K, rng=rng)
    Stationary(atoms)
    ZeroRotation(atoms)
    radii = covalent_radii[atoms.numbers]
    start = atoms.get_all_distances()
    bonded = (start > 0) & (start < 1.3 * (radii[:, None] + radii[None, :]))
    total, temperatures, changes = [], [], []

    def look() -> None:
        total.append(atoms.get_total_energy())
        temperatures.append(atoms.get_kinetic_energy() / (0.5 * units.kB * (3 * len(atoms) - 6)))
        changes.append(np.abs(atoms.get_all_distances() - start)[bonded].max())

    steps = round(1000 * DURATION_PS / TIMESTEP_FS)
    calls_before = calculator.n_calls
    dynamics = VelocityVerlet(atoms, TIMESTEP_FS * units.fs)
    dynamics.attach(look, interval=20)
    dynamics.run(steps)
    assert calculator.n_calls - calls_before == steps + 1
    held = {
        f"a bond changed by {max(changes):.2f} Å": max(changes) < BROKEN_BOND_ANG,
        f"energy moved by {np.ptp(total):.3f} eV": np.ptp(total) / len(atoms) < 0.005,
        f"{np.mean(temperatures):.0f} K": TEMPERATURE_K / 2 < np.mean(temperatures) < 2 * TEMPERATURE_K,
    }
    broke = [what for what, ok in held.items() if not ok]
    return f"{atoms.symbols} ({calculator.engine}): {', '.join(broke)}" if broke else None
