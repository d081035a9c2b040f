"""The shipped weights: symmetries, forces and stability, on molecules that they were not trained on."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.data import covalent_radii
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mlff_exp import StudentForceFieldCalculator, checkpoint
from mlff_exp.batch import collate
from mlff_exp.config import shipped_checkpoints
from mlff_exp.data import ORIGINS, VALIDATION, Dataset
from mlff_exp.engine import energy_and_forces
from mlff_exp.painn import PaiNN

# Largest difference of energies per atom (eV) and of forces (eV/Å) that rounding explains.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
# Step of finite differences (Å) and largest difference from the force (eV/Å): an FP32 energy is coarse.
DIFFERENCES = {torch.float64: (1e-3, 1e-5), torch.float32: (1e-2, 5e-3)}
N_MOLECULES, TEMPERATURE_K, DURATION_PS, TIMESTEP_FS = 20, 500.0, 5.0, 0.5
BROKEN_BOND_ANG = 0.5

students = pytest.mark.parametrize("name", shipped_checkpoints())
dtypes = pytest.mark.parametrize("dtype", list(TOLERANCE))
few = settings(max_examples=8, deadline=None)
seeds = st.integers(0, 2**32 - 1)


@functools.cache
def model(name: str, dtype: torch.dtype) -> PaiNN:
    loaded = checkpoint.load(name).model
    assert isinstance(loaded, PaiNN)
    return copy.deepcopy(loaded).cast(dtype)


@functools.cache
def validation_set() -> Dataset:
    return Dataset.load(VALIDATION)


def structure(index: int) -> Atoms:
    dataset = validation_set()
    atoms = slice(dataset.starts[index], dataset.starts[index] + dataset.counts[index])
    return Atoms(dataset.atomic_numbers[atoms], dataset.positions[atoms])


def unseen(seed: int) -> Atoms:
    return structure(seed % len(validation_set()))


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
    direction = rng.normal(size=atoms.positions.shape)
    direction /= np.linalg.norm(direction)

    def energy(distance: float) -> float:
        moved = atoms.copy()
        moved.positions += distance * direction
        return predict(model(name, dtype), moved)[0]

    # Fourth order: (−E(2h) + 8 E(h) − 8 E(−h) + E(−2h)) / 12h.
    slope = (8 * (energy(step) - energy(-step)) - (energy(2 * step) - energy(-2 * step))) / (12 * step)
    projected = -(predict(model(name, dtype), atoms)[1] * direction).sum()
    assert slope == pytest.approx(projected, abs=tolerance), str(atoms.symbols)


def relaxed(n_molecules: int) -> list[int]:
    """As many relaxed structures of the validation set, of molecules all over it."""
    indices = np.flatnonzero(validation_set().origin == ORIGINS.index("relaxed"))
    return indices[:: len(indices) // n_molecules][:n_molecules].tolist()


@pytest.mark.gpu
@students
@pytest.mark.parametrize("index", relaxed(N_MOLECULES))
def test_an_unseen_molecule_stays_intact(name: str, index: int) -> None:
    assert_stays_intact(structure(index), StudentForceFieldCalculator(name, engine="cuda_graph"))


def assert_stays_intact(atoms: Atoms, calculator: StudentForceFieldCalculator) -> None:
    """NVE with ASE: no bond changes its length by much, and the temperature is what the start gives."""
    rng = np.random.default_rng(0)
    atoms.calc = calculator
    # From a minimum half of the kinetic energy becomes potential.
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * TEMPERATURE_K, rng=rng)
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
    dynamics = VelocityVerlet(atoms, TIMESTEP_FS * units.fs)
    dynamics.attach(look, interval=20)
    dynamics.run(steps)
    what = f"{atoms.symbols}, {calculator.engine}"
    assert calculator.n_calls == steps + 1
    assert max(changes) < BROKEN_BOND_ANG, f"{what}: a bond changed by {max(changes):.2f} Å"
    assert np.ptp(total) / len(atoms) < 0.005, f"{what}: energy moved by {np.ptp(total):.3f} eV"
    assert TEMPERATURE_K / 2 < np.mean(temperatures) < 2 * TEMPERATURE_K, f"{what}: {np.mean(temperatures):.0f} K"
