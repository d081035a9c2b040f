"""The neighbour matrix against ASE's neighbour list, and the rules that make its adjoint a gather."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.geometry import complete_cell
from ase.neighborlist import primitive_neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_exp.dynamics.verlet import Dynamics
from mlff_exp.engines.prediction import Prediction
from mlff_exp.models.painn import pair_vectors
from mlff_exp.structures import neighbors
from mlff_exp.structures.batch import AtomicBatch, collate, rebuild_neighbors
from mlff_exp.structures.neighbors import gather_neighbors, neighbor_list
from mlff_exp.structures.sizes import ALL_PAIRS_MAX_ATOMS
from tests.conftest import rattled
from tests.helpers.shapes import assert_batch

seeds = st.integers(0, 2**32 - 1)


def random_cell(seed: int) -> Atoms:
    """Skewed cells down to half the cutoff, any mixture of periodic directions."""
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(2.5, 8, size=3)) + rng.uniform(-1, 1, size=(3, 3))
    n_atoms = int(rng.integers(1, 6))
    scaled = rng.uniform(-1, 2, size=(n_atoms, 3))
    return Atoms(["H"] * n_atoms, positions=scaled @ cell, cell=cell, pbc=rng.random(3) < 0.7)


def listed(batch: AtomicBatch, cutoff: float) -> set[tuple[int, int, tuple[float, ...]]]:
    vectors = pair_vectors(batch, cutoff)
    rows, columns = torch.nonzero(batch.mask & (vectors.norm(dim=-1) < cutoff), as_tuple=True)
    return {
        (int(i), int(batch.neighbors[i, k]), tuple(vectors[i, k].numpy().round(6) + 0.0))
        for i, k in zip(rows, columns, strict=True)
    }


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_every_pair_within_the_cutoff_is_there_once(seed: int) -> None:
    atoms = random_cell(seed)
    batch = collate([atoms], 4.0, skin=0.5)
    assert_batch(batch)
    first, second, vectors = primitive_neighbor_list("ijD", atoms.pbc, atoms.cell, atoms.positions, 4.0)
    expected = {
        (int(i), int(j), tuple(vector.round(6) + 0.0)) for i, j, vector in zip(first, second, vectors, strict=True)
    }
    assert listed(batch, 4.0) == expected
    assert len(first) == len(expected)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, thin=st.booleans(), skin=st.sampled_from([0.0, 0.5]), others=st.integers(0, 1))
def test_the_first_columns_hold_every_pair_within_a_shorter_cutoff(
    seed: int, thin: bool, skin: float, others: int
) -> None:
    systems = [random_cell(seed + index) for index in range(1 + others)]
    if thin:
        systems[0].set_cell(systems[0].cell * [[0.4], [1], [1]], scale_atoms=True)
    batch = collate(systems, 5.0, near=(2.0, 3.5), skin=skin)
    assert_batch(batch)
    for cutoff in (2.0, 3.5):
        part = batch.within(cutoff)
        assert_batch(part)
        assert_involution(part)
        assert listed(part, cutoff) == listed(batch, cutoff)
        assert listed(part, cutoff + skin) == listed(batch, cutoff + skin)
        first, *_ = primitive_neighbor_list(
            "ij", systems[0].pbc, complete_cell(systems[0].cell), systems[0].positions, cutoff
        )
        assert len(first) == sum(row < batch.n_slots for row, *_ in listed(part, cutoff))


def test_columns_of_a_shorter_cutoff_are_few_grow_and_never_shrink() -> None:
    """A crystal that is compressed and then expanded."""
    crystal = bulk("Cu", cubic=True).repeat(2)
    batch = collate([crystal], 8.0, near=(3.0,), skin=0.5)
    assert batch.near_columns == ((3.0, 16),)  # 12 neighbours
    compressed = collate([scaled(crystal, 0.8)], 8.0, near=(3.0,), skin=0.5)
    assert compressed.near_columns == ((3.0, 24),)  # 18 neighbours
    keys = {batch.shape_key, compressed.shape_key}
    assert len(keys) == 2
    narrow = replace(compressed, near_columns=((3.0, 8),))
    again = rebuild_neighbors(narrow, [True], 8.0, skin=0.5)
    assert again.near_columns == ((3.0, 24),)
    wide = replace(again, cell=batch.cell, positions=batch.positions)
    assert rebuild_neighbors(wide, [True], 8.0, skin=0.5).near_columns == ((3.0, 24),)
    assert again.to("cpu").near_columns == again.with_tensors(*again.tensors()).near_columns == ((3.0, 24),)


def scaled(atoms: Atoms, by: float) -> Atoms:
    other = atoms.copy()
    other.set_cell(atoms.cell * by, scale_atoms=True)
    return other


@pytest.mark.parametrize("at_once", [1, 1000])
def test_looking_at_few_pairs_at_a_time_finds_the_same(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    atoms = random_cell(3)
    positions, cell, pbc = (torch.from_numpy(np.asarray(array)) for array in (atoms.positions, atoms.cell, atoms.pbc))
    whole = neighbor_list(positions, cell, pbc, 4.0)
    monkeypatch.setattr(neighbors, "CANDIDATES_AT_ONCE", at_once)
    parts = neighbor_list(positions, cell, pbc, 4.0)
    assert torch.equal(parts.neighbors, whole.neighbors)
    assert torch.equal(parts.reverse, whole.reverse)
    assert torch.equal(parts.shifts, whole.shifts)


@settings(max_examples=8, deadline=None)
@given(seed=seeds)
def test_no_pair_is_lost_while_atoms_fly(seed: int) -> None:
    """Atoms that feel nothing leave their cell and crowd together; the list is remade when the skin is used up."""
    rng = np.random.default_rng(seed)
    systems = [random_cell(seed), Atoms("H30", rng.uniform(0, 7, (30, 3)), cell=np.diag([7.0, 8.0, 9.0]), pbc=True)]
    systems = [
        Atoms("H30", rng.uniform(-1, 2, (30, 3)) @ atoms.cell, cell=atoms.cell, pbc=atoms.pbc) for atoms in systems
    ]
    for atoms in systems:
        atoms.pbc[0] = True
    flight: Any = FreeFlight()
    dynamics = Dynamics(flight, systems, timestep_fs=1.0)
    positions = dynamics.batch.positions
    velocities = torch.from_numpy(rng.normal(scale=1.5, size=positions.shape))
    state = dynamics.state(positions, velocities)
    for _ in range(20):
        dynamics.step(state)
    assert len(flight.lists) > 1


class FreeFlight:
    """An engine without forces that compares every list it is given with ASE's."""

    cutoff, device, capturable = 3.0, torch.device("cpu"), None
    shorter_cutoffs = ()

    def __init__(self) -> None:
        self.lists: set[bytes] = set()

    def __call__(self, batch: AtomicBatch) -> Prediction:
        self.lists.add(batch.neighbors.numpy().tobytes())
        offset = 0
        expected = set()
        for positions, cell, pbc in zip(batch.per_system(batch.positions), batch.cell, batch.pbc, strict=True):
            arrays = (pbc.numpy(), complete_cell(cell.numpy()), positions.numpy())
            for i, j, vector in zip(*primitive_neighbor_list("ijD", *arrays, self.cutoff), strict=True):
                expected.add((int(i) + offset, int(j) + offset, tuple(vector.round(6) + 0.0)))
            offset += batch.n_slots
        assert listed(batch, self.cutoff) == expected
        return Prediction(torch.zeros(batch.n_systems, dtype=torch.float64), torch.zeros_like(batch.positions))


@settings(max_examples=40, deadline=None)
@given(seed=seeds, others=st.integers(0, 2))
def test_reverse_is_an_involution_that_swaps_the_atoms_of_a_pair(seed: int, others: int) -> None:
    assert_involution(collate([random_cell(seed + index) for index in range(1 + others)], 4.0))


def assert_involution(batch: AtomicBatch) -> None:
    slots = torch.arange(batch.reverse.numel())
    reverse = batch.reverse.flatten()
    assert (reverse[reverse] == slots).all()
    width = batch.neighbors.shape[1]
    assert (batch.neighbors.flatten()[reverse] == slots // width).all()
    assert (batch.mask.flatten()[reverse] == batch.mask.flatten()).all()
    assert batch.shifts is None or (batch.shifts.flatten(0, 1)[reverse] == -batch.shifts.flatten(0, 1)).all()


def test_gather_and_its_adjoint_to_second_order() -> None:
    batch = collate([rattled("H2O", 0), rattled("CH4", 1)], 5.0)
    values = torch.randn(batch.positions.shape[0], 2, dtype=torch.float64, requires_grad=True)

    def gather(x: torch.Tensor) -> torch.Tensor:
        return gather_neighbors(x, batch.neighbors, batch.reverse)

    assert torch.equal(gather(values), values[batch.neighbors])
    assert torch.autograd.gradcheck(gather, values)
    assert torch.autograd.gradgradcheck(lambda x: gather(x).square(), values)


@pytest.mark.parametrize("n_atoms", [1, 2, ALL_PAIRS_MAX_ATOMS, ALL_PAIRS_MAX_ATOMS + 1])
def test_small_molecules_get_all_pairs_and_larger_ones_a_list(n_atoms: int) -> None:
    atoms = Atoms(["H"] * n_atoms, positions=np.arange(n_atoms)[:, None] * [[1.5, 0, 0]])
    batch = collate([atoms], 5.0)
    assert int(batch.mask.sum()) == (
        n_atoms * (n_atoms - 1) if n_atoms <= ALL_PAIRS_MAX_ATOMS else sum(2 * (n_atoms - k) for k in (1, 2, 3))
    )


def test_a_system_too_large_for_its_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="3 atoms does not fit into 2 rows"):
        collate([rattled("H2O", 0)], 5.0, n_slots=2)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "empty structure"),
        (Atoms("HO", positions=[[0, 0, 0], [np.nan, 0, 0]]), "NaN or infinite for atoms 1 of HO"),
        (Atoms("H", cell=[5, 5, 0], pbc=True), "H is periodic along a cell vector that has no length"),
    ],
)
def test_structures_that_no_force_field_can_evaluate_are_refused(atoms: Atoms, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collate([atoms], 5.0)
