"""The physics that a force field must obey, whatever its weights."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mlff_exp.config.checkpoints import shipped_checkpoints
from mlff_exp.engines.eager import energy_and_forces
from mlff_exp.models.checkpoint import load_checkpoint
from mlff_exp.models.painn import PaiNN, smooth_envelope
from mlff_exp.structures.batch import LIST_SLOT_STEP, SLOT_STEP, collate
from tests.conftest import REFERENCE_ENERGIES, make_random_model

# Largest difference of energies (eV) and forces (eV/Å) that rounding explains, by dtype of the weights.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3}
MODELS = {dtype: make_random_model().cast(dtype) for dtype in TOLERANCE}
CUTOFF = 5.0

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(list(TOLERANCE))
few = settings(max_examples=15, deadline=None)


def random_molecule(seed: int, n_atoms: int | None = None) -> Atoms:
    """Atoms no closer than 0.9 Å, some pairs beyond the cutoff."""
    rng = np.random.default_rng(seed)
    n_atoms = int(rng.integers(2, 12)) if n_atoms is None else n_atoms
    positions: list[np.ndarray] = []
    while len(positions) < n_atoms:
        candidate = rng.uniform(-3.5, 3.5, size=3)
        if all(np.linalg.norm(candidate - other) > 0.9 for other in positions):
            positions.append(candidate)
    return Atoms(rng.choice(["H", "C", "N", "O"], size=n_atoms), positions=positions)


def predict(systems: list[Atoms], model: PaiNN) -> tuple[np.ndarray, np.ndarray]:
    energy, forces = energy_and_forces(model, collate(systems, CUTOFF), "fp64")
    return energy.numpy(), forces.numpy()


def assert_close(left: np.ndarray, right: np.ndarray, dtype: torch.dtype, what: str) -> None:
    np.testing.assert_allclose(left, right, rtol=0, atol=TOLERANCE[dtype] * max(1.0, np.abs(right).max()), err_msg=what)


@few
@given(seed=seeds, dtype=dtypes, reflect=st.booleans())
def test_rotation_reflection_and_translation(seed: int, dtype: torch.dtype, reflect: bool) -> None:
    atoms = random_molecule(seed)
    rng = np.random.default_rng(seed)
    matrix = Rotation.random(rng=rng).as_matrix() * (-1 if reflect else 1)
    shift = rng.normal(scale=10, size=3)
    moved = atoms.copy()
    moved.positions = atoms.positions @ matrix.T + shift
    energy, forces = predict([atoms], MODELS[dtype])
    moved_energy, moved_forces = predict([moved], MODELS[dtype])
    assert_close(moved_energy - energy, np.zeros(1), dtype, f"energy under {matrix} and {shift}")
    assert_close(moved_forces, forces @ matrix.T, dtype, f"forces under {matrix} and {shift}")


@few
@given(seed=seeds, dtype=dtypes)
def test_permutation(seed: int, dtype: torch.dtype) -> None:
    atoms = random_molecule(seed)
    order = np.random.default_rng(seed).permutation(len(atoms))
    energy, forces = predict([atoms], MODELS[dtype])
    permuted_energy, permuted_forces = predict([atoms[order]], MODELS[dtype])
    assert_close(permuted_energy - energy, np.zeros(1), dtype, f"energy under {order}")
    assert_close(permuted_forces, forces[order], dtype, f"forces under {order}")


@few
@given(seed=seeds, dtype=dtypes, n_systems=st.integers(2, 5))
def test_batched_equals_single_and_padding_is_exactly_zero(seed: int, dtype: torch.dtype, n_systems: int) -> None:
    systems = [random_molecule(seed + index) for index in range(n_systems)]
    batch = collate(systems, CUTOFF, n_slots=max(map(len, systems)) + 2)
    energy, forces = energy_and_forces(MODELS[dtype], batch, "fp64")
    rows = batch.per_system(forces).numpy()
    for index, atoms in enumerate(systems):
        single_energy, single_forces = predict([atoms], MODELS[dtype])
        assert_close(energy.numpy()[index] - single_energy, np.zeros(1), dtype, f"energy of system {index}")
        assert_close(rows[index, : len(atoms)], single_forces, dtype, f"forces of system {index}")
        assert (rows[index, len(atoms) :] == 0).all()


@few
@given(seed=seeds, n_systems=st.integers(1, 5), n_atoms=st.integers(1, 9), periodic=st.booleans())
def test_buckets_change_nothing(seed: int, n_systems: int, n_atoms: int, periodic: bool) -> None:
    systems = [random_molecule(seed + index, n_atoms) for index in range(n_systems)]
    if periodic:
        systems[-1].cell, systems[-1].pbc = np.diag([6.0, 7.0, 8.0]), True
    model = MODELS[torch.float64]
    batch = collate(systems, CUTOFF, bucketed=True)
    step = LIST_SLOT_STEP if periodic else SLOT_STEP
    assert batch.n_slots % step == 0
    assert n_systems <= batch.n_systems < 2 * n_systems
    energy, forces = energy_and_forces(model, batch, "fp64")
    exact_energy, exact_forces = predict(systems, model)
    assert_close(energy.numpy()[:n_systems], exact_energy, torch.float64, "energy")
    assert (energy[n_systems:] == 0).all()
    rows = batch.per_system(forces).numpy()
    assert_close(rows[:n_systems, :n_atoms], exact_forces.reshape(n_systems, n_atoms, 3), torch.float64, "forces")
    assert (rows[n_systems:] == 0).all()
    assert (rows[:, n_atoms:] == 0).all()


@few
@given(seed=seeds, dtype=dtypes)
def test_extensive_over_far_apart_copies(seed: int, dtype: torch.dtype) -> None:
    atoms = random_molecule(seed)
    copy = atoms.copy()
    copy.positions += [100.0, 0.0, 0.0]
    energy, forces = predict([atoms], MODELS[dtype])
    both_energy, both_forces = predict([atoms + copy], MODELS[dtype])
    assert_close(both_energy - 2 * energy, np.zeros(1), dtype, "energy of two copies")
    assert_close(both_forces, np.concatenate([forces, forces]), dtype, "forces of two copies")


@few
@given(seed=seeds)
@example(seed=70614334)  # the probe lands on another atom
def test_energy_and_force_are_continuous_across_the_cutoff(seed: int) -> None:
    atoms = random_molecule(seed, n_atoms=4)
    model = MODELS[torch.float64]
    direction = np.random.default_rng(seed).normal(size=3)
    direction /= np.linalg.norm(direction)

    def at(distance: float) -> tuple[np.ndarray, np.ndarray]:
        probe = Atoms("O", positions=[atoms.positions[0] + distance * direction])
        return predict([atoms + probe], model)

    outside_energy, outside_forces = at(CUTOFF + 1e-4)
    inside_energy, inside_forces = at(CUTOFF - 1e-4)
    # Other pairs change too; a step as long that stays outside shows by how much.
    further_energy, further_forces = at(CUTOFF + 3e-4)
    assert np.abs(inside_energy - outside_energy).max() < 1e-6 + 2 * np.abs(further_energy - outside_energy).max()
    assert np.abs(inside_forces - outside_forces).max() < 1e-5 + 2 * np.abs(further_forces - outside_forces).max()


@pytest.mark.parametrize("pair", ["HH", "CO", "ON"])
def test_a_pair_stops_interacting_at_the_cutoff(pair: str) -> None:
    def largest_force(distance: float) -> float:
        return float(np.abs(predict([Atoms(pair, [[0, 0, 0], [0, 0, distance]])], MODELS[torch.float64])[1]).max())

    assert largest_force(CUTOFF + 1e-4) == 0
    assert largest_force(CUTOFF - 1e-4) < 1e-6
    assert largest_force(CUTOFF - 1.5) > 1e-4


def test_envelope_vanishes_with_two_derivatives() -> None:
    x = torch.tensor([1.0 - 1e-9, 1.0, 1.5], dtype=torch.float64, requires_grad=True)
    value = smooth_envelope(x)
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    for derivative, limit in ((value, 1e-20), (first, 1e-14), (second, 1e-5)):
        assert derivative.abs().max() < limit
    assert smooth_envelope(torch.zeros(1)).item() == 1.0


@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_periodic_cell_against_its_supercell(seed: int) -> None:
    rng = np.random.default_rng(seed)
    atoms = random_molecule(seed, n_atoms=3)
    atoms.cell = np.diag(rng.uniform(3.5, 7.0, size=3)) + rng.uniform(-0.8, 0.8, size=(3, 3))
    atoms.pbc = True
    atoms.positions += rng.uniform(-20, 20, size=3)  # outside the cell on purpose
    energy, forces = predict([atoms], MODELS[torch.float64])
    super_energy, super_forces = predict([atoms.repeat(2)], MODELS[torch.float64])
    np.testing.assert_allclose(super_energy, 8 * energy, rtol=1e-12)
    scale = max(1.0, np.abs(forces).max())
    np.testing.assert_allclose(super_forces.reshape(8, -1, 3), np.stack([forces] * 8), atol=1e-9 * scale)


@settings(max_examples=8, deadline=None)
@given(seed=seeds, periodic=st.booleans())
def test_gradcheck_of_energy_and_forces(seed: int, periodic: bool) -> None:
    atoms = random_molecule(seed, n_atoms=4)
    if periodic:
        atoms.cell, atoms.pbc = [6.0, 6.5, 7.0], [True, True, False]
    batch = collate([atoms], CUTOFF)
    model = MODELS[torch.float64]

    def energy(positions: torch.Tensor) -> torch.Tensor:
        return model(batch.with_positions(positions)) - sum(model.reference_energies[1:])

    def forces(positions: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(energy(positions).sum(), positions, create_graph=True)[0]

    positions = batch.positions.clone().requires_grad_(True)
    assert torch.autograd.gradcheck(energy, positions, eps=1e-5, atol=1e-3, rtol=1e-4)
    assert torch.autograd.gradcheck(forces, positions, eps=1e-5, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("name", shipped_checkpoints())
def test_finite_and_repulsive_when_atoms_collide(name: str) -> None:
    student = load_checkpoint(name).model
    assert isinstance(student, PaiNN)
    for pair in combinations_with_replacement(student.elements, 2):
        contact = sum(covalent_radii[atomic_numbers[symbol]] for symbol in pair)
        distances = contact * np.linspace(0.02, 0.75, 60)
        energies, forces = predict([Atoms(pair, positions=[[0, 0, 0], [0, 0, d]]) for d in distances], student)
        assert np.isfinite(energies).all()
        assert np.isfinite(forces).all()
        deepest = (energies - np.minimum.accumulate(energies)).max()
        assert deepest < 0.05, f"{pair}: a well of {deepest:.2f} eV"
        overlap = distances < 0.65 * contact
        assert (forces.reshape(-1, 2, 3)[overlap, 1, 2] > 0).all(), pair


def test_same_bits_twice(student: PaiNN, benzene: Atoms) -> None:
    first, second = (predict([benzene], student) for _ in range(2))
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_forces_balance_exactly(dtype: torch.dtype) -> None:
    _, forces = predict([random_molecule(3, n_atoms=9)], MODELS[dtype])
    assert np.abs(forces.sum(axis=0)).max() < 1e-11 * max(1.0, np.abs(forces).max())


def test_single_atom_has_its_reference_energy_plus_what_the_network_adds() -> None:
    model = MODELS[torch.float64]
    energy, forces = predict([Atoms("C")], model)
    higher = PaiNN(model.architecture, {**REFERENCE_ENERGIES, "C": REFERENCE_ENERGIES["C"] + 7}).cast(torch.float64)
    higher.load_state_dict(model.state_dict())
    assert predict([Atoms("C")], higher.requires_grad_(False))[0] - energy == pytest.approx(7, abs=1e-9)
    assert (forces == 0).all()


def test_unknown_elements_are_named() -> None:
    with pytest.raises(ValueError, match="not trained on Fe, Si; it knows H, C, N, O"):
        MODELS[torch.float64].check_elements(["H", "Si", "Fe"])
