"""`AtomicBatch`, the container of structures that every model and engine reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from mlff_exp.structures.checks import check_neighbors, check_structure
from mlff_exp.structures.neighbors import NeighborMatrix, all_pairs, first_columns, neighbor_list, uses_all_pairs

# Rows of a system are padded to a multiple of these: of the first where all atoms of a system are neighbours, of the
# second where there is a neighbour list. Few shapes need few compiled graphs; small steps need little padding.
SLOT_STEP, LIST_SLOT_STEP = 4, 64
NearColumns = tuple[tuple[float, int], ...]
ShapeKey = tuple[int, int, int, bool, bool, NearColumns]


@dataclass(frozen=True)
class AtomicBatch:
    """Several systems, each padded to the same number of rows.

    ``n_rows = n_systems * n_slots``. A padding row has atomic number 0 and no neighbours, and contributes exactly
    zero. The rows of a system are contiguous, and all systems have equally many. A sum over the atoms of a system is
    therefore a sum over a dense axis: no scatter, no atomics, the same bits every time.

    Positions are FP64 whatever the precision of the model. Differences of positions and sums of forces are computed in
    FP64, so that the force on one atom is exactly balanced by the forces on the others.

    Attributes:
        positions: [n_rows, 3] Å, FP64.
        atomic_numbers: [n_rows], int64; 0 is padding.
        cell: [n_systems, 3, 3] Å, FP64; rows are the cell vectors, as in ASE. Zero where not periodic.
        pbc: [n_systems, 3], bool.
        neighbors: [n_rows, max_neighbors], int64; row of the neighbour (see `neighbors.py`).
        reverse: [n_rows, max_neighbors], int64; flat index of the same pair in the neighbour's row.
        mask: [n_rows, max_neighbors], bool; False where there is no neighbour.
        shifts: [n_rows, max_neighbors, 3], FP64; integer multiples of the cell vectors that are added to the
            neighbour's position. None if no system is periodic.
        sources: the structures that the batch was made of, or None if it was made of tensors. ASE calculators read
            charges and tags from them; their positions are not used.
        fully_periodic: whether every system with atoms is periodic in all three directions, so that it has a volume
            and a stress. It is also in ``pbc``, but reading it from there would wait for the GPU.
        near_columns: shorter cutoffs (Å) of the model, each with the number of first columns that hold all pairs within
            it and the skin. Empty if the model has none, or if all atoms of all systems are neighbours.
    """

    positions: Tensor
    atomic_numbers: Tensor
    cell: Tensor
    pbc: Tensor
    neighbors: Tensor
    reverse: Tensor
    mask: Tensor
    shifts: Tensor | None = None
    sources: tuple[Atoms, ...] | None = field(default=None, repr=False, compare=False, kw_only=True)
    fully_periodic: bool = field(default=False, kw_only=True)
    near_columns: NearColumns = field(default=(), kw_only=True)

    @property
    def n_systems(self) -> int:
        """Number of systems."""
        return self.cell.shape[0]

    @property
    def n_slots(self) -> int:
        """Rows per system, padding included."""
        return self.positions.shape[0] // self.n_systems

    @property
    def is_atom(self) -> Tensor:
        """[n_rows], bool; False for padding."""
        return self.atomic_numbers > 0

    @property
    def n_atoms(self) -> int:
        """Number of atoms in all systems, padding excluded."""
        return int(self.is_atom.sum())

    @property
    def volumes(self) -> Tensor:
        """[n_systems] Å³; zero for a system that is not periodic in all three directions."""
        one, two, three = self.cell.unbind(dim=1)
        volumes: Tensor = (one * torch.linalg.cross(two, three)).sum(dim=-1).abs()
        return volumes

    @property
    def shape_key(self) -> ShapeKey:
        """What a compiled graph is specialised for.

        It is the numbers of systems, of rows per system and of neighbours, whether there are shifts, whether every
        system has a stress, and the columns of shorter cutoffs.
        """
        return (
            self.n_systems,
            self.n_slots,
            self.neighbors.shape[1],
            self.shifts is not None,
            self.fully_periodic,
            self.near_columns,
        )

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors in the order of the fields, without an absent ``shifts``."""
        # Written out, because every call of an engine needs them: looking up the fields would take longer than copying.
        always = (
            self.positions, self.atomic_numbers, self.cell, self.pbc, self.neighbors, self.reverse, self.mask
        )  # fmt: skip
        return always if self.shifts is None else (*always, self.shifts)

    def to(self, device: torch.device | str) -> AtomicBatch:
        """Return the same batch on another device."""
        return replace(self.with_tensors(*(tensor.to(device) for tensor in self.tensors())), sources=self.sources)

    def with_tensors(self, *tensors: Tensor) -> AtomicBatch:
        """Return a batch of the same ``shape_key`` and other tensors, in the order of `tensors`, without sources."""
        return AtomicBatch(*tensors, fully_periodic=self.fully_periodic, near_columns=self.near_columns)

    def within(self, cutoff: float) -> AtomicBatch:
        """Return the same batch with as few columns of neighbours as hold all pairs within a cutoff, Å."""
        n_columns = min((n for near, n in self.near_columns if near >= cutoff), default=self.neighbors.shape[1])
        if n_columns >= self.neighbors.shape[1]:
            return self
        neighbors, reverse, mask, stays = first_columns(self.neighbors, self.reverse, self.mask, n_columns)
        shifts = None if self.shifts is None else self.shifts[:, :n_columns] * stays.unsqueeze(-1)
        return replace(self, neighbors=neighbors, reverse=reverse, mask=mask, shifts=shifts, near_columns=())

    def with_positions(self, positions: Tensor) -> AtomicBatch:
        """Return the same batch and neighbours with other positions, [n_rows, 3] Å."""
        return replace(self, positions=positions)

    def strained(self, strain: Tensor) -> AtomicBatch:
        """Return the same batch and neighbours with positions x (1 + ε) and cell vectors c (1 + ε), for ε [3, 3]."""
        return replace(self, positions=self.positions + self.positions @ strain, cell=self.cell + self.cell @ strain)

    def per_system(self, values: Tensor) -> Tensor:
        """View values [n_rows, ...] as [n_systems, n_slots, ...]."""
        return values.reshape(self.n_systems, self.n_slots, *values.shape[1:])


def collate(
    systems: Sequence[Atoms],
    cutoff: float,
    *,
    near: Sequence[float] = (),
    skin: float = 0.0,
    n_slots: int | None = None,
    bucketed: bool = False,
    device: torch.device | str = "cpu",
) -> AtomicBatch:
    """Pad and join systems into one batch.

    Args:
        systems: at least one; each has at least one atom.
        cutoff: cutoff of the model, Å.
        near: shorter cutoffs of the model, Å. Each gets a list of its own: the first columns of the longest.
        skin: distance that is added to the cutoffs of systems with a neighbour list, Å. A list stays complete until an
            atom has moved by half of it.
        n_slots: rows per system; the size of the largest system if not given.
        bucketed: whether to pad rows, neighbours and the number of systems to one of few shapes.
        device: device of the tensors.

    Raises:
        ValueError: no systems, a structure that `check_structure` or `check_neighbors` refuses, or a system larger than
            ``n_slots``.
    """
    if not systems:
        raise ValueError("a batch needs at least one system")
    for atoms in systems:
        check_structure(atoms)
        if not uses_all_pairs(atoms):
            check_neighbors(atoms, cutoff + skin)
    largest, n_systems = max(len(atoms) for atoms in systems), len(systems)
    n_slots = largest if n_slots is None else n_slots
    if largest > n_slots:
        raise ValueError(f"a system of {largest} atoms does not fit into {n_slots} rows")

    no_list = all(uses_all_pairs(atoms) for atoms in systems)
    if bucketed:
        n_slots = _up(n_slots, SLOT_STEP if no_list else LIST_SLOT_STEP)
        n_systems = 1 << (n_systems - 1).bit_length()

    positions = np.zeros((n_systems, n_slots, 3))
    numbers = np.zeros((n_systems, n_slots), dtype=np.int64)
    cell, pbc = np.zeros((n_systems, 3, 3)), np.zeros((n_systems, 3), dtype=bool)
    for index, atoms in enumerate(systems):
        positions[index, : len(atoms)] = atoms.positions
        numbers[index, : len(atoms)] = atoms.numbers
        cell[index], pbc[index] = np.asarray(atoms.cell) * atoms.pbc[:, None], atoms.pbc

    # All-pairs matrices are cached on the CPU; neighbour lists are computed on the device.
    where = torch.device("cpu" if no_list else device)
    at, element, cells, periodic = (torch.from_numpy(array).to(where) for array in (positions, numbers, cell, pbc))
    uses_list = [not uses_all_pairs(atoms) for atoms in systems] + [False] * (n_systems - len(systems))
    width = n_slots - 1 if bucketed and no_list else 0
    near = () if no_list else tuple(near)
    radii = tuple(shorter + skin for shorter in near)
    neighbors = _neighbors(at, element, cells, periodic, uses_list, cutoff + skin, width, radii)
    return AtomicBatch(
        positions=at.flatten(0, 1),
        atomic_numbers=element.flatten(),
        cell=cells,
        pbc=periodic,
        neighbors=neighbors.neighbors,
        reverse=neighbors.reverse,
        mask=neighbors.mask,
        shifts=neighbors.shifts if pbc.any() else None,
        sources=tuple(systems),
        fully_periodic=bool(pbc[: len(systems)].all()),
        near_columns=tuple(zip(near, neighbors.near_columns, strict=True)),
    ).to(device)


def rebuild_neighbors(
    batch: AtomicBatch, uses_list: Sequence[bool], cutoff: float, *, skin: float = 0.0
) -> AtomicBatch:
    """Find the neighbours of a batch at its present positions, on its device.

    The shape stays the same unless an atom has more neighbours than the matrix, or the part of it for a shorter cutoff,
    has columns. Then columns are added.

    Args:
        batch: a batch of `collate`, with new positions.
        uses_list: [n_systems]; True for systems with a neighbour list, False where all atoms are neighbours.
        cutoff: cutoff of the model, Å.
        skin: distance that is added to all cutoffs, Å.

    Returns:
        The same batch with new neighbours.
    """
    found = _neighbors(
        batch.per_system(batch.positions),
        batch.per_system(batch.atomic_numbers),
        batch.cell,
        batch.pbc,
        uses_list,
        cutoff + skin,
        batch.neighbors.shape[1],
        tuple(shorter + skin for shorter, _ in batch.near_columns),
    )
    grown = zip(batch.near_columns, found.near_columns, strict=True)
    return replace(
        batch,
        neighbors=found.neighbors,
        reverse=found.reverse,
        mask=found.mask,
        shifts=None if batch.shifts is None else found.shifts,
        near_columns=tuple((shorter, max(columns, needed)) for (shorter, columns), needed in grown),
    )


def _neighbors(
    positions: Tensor,
    numbers: Tensor,
    cell: Tensor,
    pbc: Tensor,
    uses_list: Sequence[bool],
    radius: float,
    min_columns: int,
    near: tuple[float, ...],
) -> NeighborMatrix:
    """Find the neighbours of each system, and stack them; the arguments are those of `AtomicBatch` per system."""
    n_slots = numbers.shape[1]
    matrices = []
    for system, n_atoms in enumerate((numbers > 0).sum(dim=1).tolist()):
        if uses_list[system]:
            matrices.append(neighbor_list(positions[system, :n_atoms], cell[system], pbc[system], radius, near))
            continue
        device = positions.device
        matrix = all_pairs(n_atoms).to(device) if n_atoms > 0 else NeighborMatrix.empty(n_slots, 1, device)
        matrices.append(replace(matrix, near_columns=(matrix.max_neighbors,) * len(near)))
    max_neighbors = max(min_columns, *(matrix.max_neighbors for matrix in matrices))
    return NeighborMatrix.stack([matrix.padded(n_slots, max_neighbors) for matrix in matrices])


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
