"""A network on edges: padding and the skin of a list change nothing, and the symmetries of space hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.neighborlist import primitive_neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import nn

from mlff_exp.engines.eager import EagerEngine
from mlff_exp.engines.factory import make_engine
from mlff_exp.models.graph import GraphModel, edges_within
from mlff_exp.structures.batch import collate, rebuild_neighbors
from mlff_exp.structures.neighbors import uses_all_pairs
from tests.helpers.networks import TwoRanges, random_structure, with_more_columns
from tests.helpers.predictions import moved, predicted
from tests.helpers.shapes import assert_edges
from tests.outside.package.outside_force_field.network import Pairs

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
NETWORKS: dict[str, type[nn.Module]] = {"one cutoff": Pairs, "two cutoffs": TwoRanges}
MAX_CUTOFF = 5.0
# FP64 rounds sums of a thousand electronvolts; forces are of the network alone.
ENERGY_EV, FORCE_EV_PER_ANG = 1e-11, 1e-12
FP32_EV_PER_ANG = 1e-4

structures = st.builds(random_structure, st.integers(0, 2**32 - 1), periodic=st.booleans())
networks = pytest.mark.parametrize("network", NETWORKS)
some = settings(max_examples=12, deadline=None)


def engine_of(network: str, precision: Any = "fp64", name: str = "eager", device: torch.device = CPU) -> Any:
    made = Pairs(4.0, 8) if network == "one cutoff" else TwoRanges()
    return make_engine(GraphModel(made), name, precision, device)


def assert_same(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray], fp32: bool) -> None:
    energy, force = (2e-3, FP32_EV_PER_ANG) if fp32 else (ENERGY_EV, FORCE_EV_PER_ANG)
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=energy)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5 if fp32 else 1e-13, atol=force)


@networks
@pytest.mark.parametrize("precision", ["fp64", "fp32"])
@some
@given(atoms=structures, rows=st.integers(0, 5), columns=st.integers(0, 20), skin=st.sampled_from([0.0, 0.3, 2.0]))
def test_padding_and_skin_change_nothing(
    network: str, precision: str, atoms: Atoms, rows: int, columns: int, skin: float
) -> None:
    engine = engine_of(network, precision)
    plain = predicted(engine, collate([atoms], engine.cutoff, near=engine.shorter_cutoffs))
    padded = collate([atoms], engine.cutoff, near=engine.shorter_cutoffs, skin=skin, n_slots=len(atoms) + rows)
    energy, forces = predicted(engine, with_more_columns(padded, columns))
    assert np.isfinite(energy).all()
    assert np.isfinite(forces).all()
    assert_same((energy, forces[:, : len(atoms)]), plain, precision == "fp32")


@networks
@some
@given(systems=st.lists(structures, min_size=2, max_size=4))
def test_a_system_in_a_batch_is_as_by_itself(network: str, systems: list[Atoms]) -> None:
    engine = engine_of(network)
    energies, forces = predicted(engine, collate(systems, engine.cutoff, near=engine.shorter_cutoffs, bucketed=True))
    for index, atoms in enumerate(systems):
        alone = predicted(engine, collate([atoms], engine.cutoff, near=engine.shorter_cutoffs))
        assert_same((energies[index : index + 1], forces[index : index + 1, : len(atoms)]), alone, fp32=False)


@networks
@some
@given(atoms=structures, seed=st.integers(0, 2**32 - 1), mirrored=st.booleans())
def test_turned_mirrored_moved_and_renumbered_it_is_the_same(
    network: str, atoms: Atoms, seed: int, mirrored: bool
) -> None:
    engine, rng = engine_of(network), np.random.default_rng(seed)
    turn = Rotation.random(rng=rng).as_matrix() * (-1 if mirrored else 1)
    order = rng.permutation(len(atoms))
    other = atoms[order]
    other.positions = other.positions @ turn.T + rng.normal(size=3)
    other.set_cell(atoms.cell @ turn.T)
    if atoms.pbc.any():  # another image of each atom
        images = rng.integers(-1, 2, size=(len(atoms), 3)) * atoms.pbc
        other.positions += images @ other.cell[:]
    energy, forces = predicted(engine, collate([atoms], engine.cutoff, near=engine.shorter_cutoffs))
    found = predicted(engine, collate([other], engine.cutoff, near=engine.shorter_cutoffs))
    np.testing.assert_allclose(found[0], energy, rtol=0, atol=ENERGY_EV)
    np.testing.assert_allclose(found[1][0], forces[0][order] @ turn.T, rtol=0, atol=1e-9)


@networks
@some
@given(seed=st.integers(0, 2**32 - 1))
def test_two_cells_have_twice_the_energy(network: str, seed: int) -> None:
    engine, atoms = engine_of(network), random_structure(seed, periodic=True)
    energy, forces = predicted(engine, collate([atoms], engine.cutoff, near=engine.shorter_cutoffs))
    twice, both = predicted(engine, collate([atoms.repeat((2, 1, 1))], engine.cutoff, near=engine.shorter_cutoffs))
    np.testing.assert_allclose(twice, 2 * energy, rtol=0, atol=4 * ENERGY_EV)
    np.testing.assert_allclose(both[0], np.concatenate([forces[0], forces[0]]), rtol=0, atol=1e-11)


@networks
@pytest.mark.parametrize("periodic", [False, True])
def test_forces_are_the_derivatives_of_the_energy(network: str, periodic: bool) -> None:
    engine, atoms, step = engine_of(network), random_structure(7, periodic=periodic), 1e-4
    _, forces = predicted(engine, collate([atoms], engine.cutoff, near=engine.shorter_cutoffs))

    def energy(positions: np.ndarray, cell: np.ndarray) -> float:
        moved = Atoms(atoms.numbers, positions, cell=cell, pbc=atoms.pbc)
        return float(engine(collate([moved], engine.cutoff, near=engine.shorter_cutoffs)).energy)

    direction = np.random.default_rng(0).normal(size=atoms.positions.shape)
    ahead, behind = (energy(atoms.positions + sign * step * direction, atoms.cell[:]) for sign in (1, -1))
    np.testing.assert_allclose((ahead - behind) / (2 * step), -(forces[0] * direction).sum(), rtol=1e-5, atol=1e-6)


@some
@given(seed=st.integers(0, 2**32 - 1))
def test_each_cutoff_has_its_own_edges(seed: int) -> None:
    atoms = random_structure(seed, periodic=True)
    batch = collate([atoms], 4.7, near=(2.5,), skin=0.5, n_slots=len(atoms) + 2)
    for cutoff in (2.5, 4.7):
        assert_edges(edges_within(batch, cutoff, torch.float32), batch.within(cutoff), torch.float32)
        edges = edges_within(batch, cutoff, torch.float64)
        assert_edges(edges, batch.within(cutoff), torch.float64)
        (receivers, senders), vectors = edges
        real = vectors.norm(dim=1) < cutoff
        assert (vectors[~real] == torch.tensor([cutoff, 0, 0], dtype=torch.float64)).all()
        found = sorted(
            (int(i), int(j), *vector.tolist())
            for i, j, vector in zip(receivers[real], senders[real], vectors[real].round(decimals=6), strict=True)
        )
        first, second, by_ase = primitive_neighbor_list("ijD", atoms.pbc, atoms.cell, atoms.positions, cutoff)
        expected = sorted((int(i), int(j), *v) for i, j, v in zip(first, second, by_ase.round(6).tolist(), strict=True))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@some
@given(
    systems=st.lists(structures, min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
    skin=st.sampled_from([0.4, 1.0]),
)
def test_a_list_for_each_cutoff_gives_what_one_list_gives(systems: list[Atoms], seed: int, skin: float) -> None:
    """With padding, after moves within the skin, and after far moves and a new list."""
    engine, rng = engine_of("two cutoffs"), np.random.default_rng(seed)
    n_slots, listed = 10, [not uses_all_pairs(atoms) for atoms in systems]
    one = collate(systems, engine.cutoff, skin=skin, n_slots=n_slots)
    two = collate(systems, engine.cutoff, near=engine.shorter_cutoffs, skin=skin, n_slots=n_slots)
    assert bool(two.near_columns) == any(listed)

    def assert_equal() -> None:
        found, expected = predicted(engine, two), predicted(engine, one)
        np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=ENERGY_EV)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-13, atol=1e-11)

    assert_equal()
    directions = rng.normal(size=(len(one.positions), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    moves = torch.from_numpy(directions * rng.uniform(0, skin / 2, size=(len(directions), 1)))
    one, two = (batch.with_positions(batch.positions + moves) for batch in (one, two))
    assert_equal()
    near = two.near_columns
    one, two = (batch.with_positions(batch.positions + 2 * moves) for batch in (one, two))
    one, two = (rebuild_neighbors(batch, listed, engine.cutoff, skin=skin) for batch in (one, two))
    assert all(new >= old for (_, old), (_, new) in zip(near, two.near_columns, strict=True))
    assert_equal()


def test_energies_of_isolated_atoms_are_added_in_fp64() -> None:
    far = Atoms("OHC", [(0, 0, 0), (30, 0, 0), (0, 30, 0)])
    for precision in ("fp64", "fp32"):
        energy, forces = predicted(engine_of("two cutoffs", precision), collate([far], MAX_CUTOFF))
        assert energy == -2040.0 - 13.6 - 1030.0
        assert (forces == 0).all()


def test_a_network_without_elements_takes_any() -> None:
    network = TwoRanges()
    network.elements = None  # type: ignore[assignment]
    model = GraphModel(network)
    model.check_elements(["H", "Xe"])
    assert EagerEngine(model.double(), "fp64", CPU)(collate([molecule("H2O")], 5.0, n_slots=5)).energy.isfinite().all()


def test_compiled_it_computes_the_same() -> None:
    """One shape, which holds all: two cutoffs, a cell and a skin, a molecule beside it, padding rows and columns."""
    cell, free = random_structure(3, periodic=True), random_structure(4, periodic=False)
    batch = collate([cell, free], 4.7, near=(2.5,), skin=0.5, n_slots=9)
    assert batch.near_columns[0][1] < batch.neighbors.shape[1]
    compiled, eager = engine_of("two cutoffs", name="compile"), engine_of("two cutoffs")
    for one in (batch, moved(batch)):
        assert_same(predicted(compiled, one), predicted(eager, one), fp32=False)
    assert compiled.compiled_graphs == 1


@pytest.mark.gpu
@networks
@pytest.mark.parametrize("name", ["eager", "compile", "cuda_graph"])
@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_on_a_gpu_it_computes_the_same(network: str, name: str, precision: str) -> None:
    reference, engine = engine_of(network), engine_of(network, precision, name, CUDA)
    systems = [random_structure(3, periodic=True), random_structure(4, periodic=False)]
    batch = with_more_columns(collate(systems, engine.cutoff, near=engine.shorter_cutoffs, skin=0.5, n_slots=9), 3)
    for one in (batch, moved(batch)):  # the second replays
        found, expected = predicted(engine, one.to(CUDA)), predicted(reference, one)
        if precision == "fp64":
            np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-10)
            np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-10)
        else:
            assert_same(found, expected, fp32=True)
