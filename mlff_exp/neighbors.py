"""The one neighbour layout: a static matrix with a row per atom and a column per neighbour.

Every pair stands in it twice, as slot (i, k) seen from atom i and as slot (j, l) seen from atom j, and
``reverse`` maps each onto the other. An empty slot points at its own atom and is its own reverse. So
``reverse`` is an involution on the slots, and the adjoint of gathering from neighbours is again a gather
followed by a sum over the neighbour axis. Nothing is ever scattered: no atomics, the same input gives the
same bits, and the compiler can fuse both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list
from torch import Tensor

# A list has a multiple of this many columns, so that its shape, and with it the compiled graph, rarely changes.
LIST_COLUMNS = 16
# Up to this many atoms a molecule gets all its other atoms as neighbours: exact for every geometry, never rebuilt.
ALL_PAIRS_MAX_ATOMS = 64

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NeighborMatrix:
    """Neighbours of one system or of several equally padded ones.

    Attributes:
        neighbors: [n_atoms, max_neighbors] index of the neighbour.
        reverse: [n_atoms, max_neighbors] flat index of the slot of the same pair in the neighbour's row.
        mask: [n_atoms, max_neighbors] False where the slot is empty.
        shifts: [n_atoms, max_neighbors, 3] whole cell vectors added to the neighbour's position.
    """

    neighbors: IntArray
    reverse: IntArray
    mask: BoolArray
    shifts: FloatArray

    def padded(self, n_atoms: int, max_neighbors: int) -> NeighborMatrix:
        """The same neighbours in a larger matrix; new slots are empty."""
        old_atoms, old_neighbors = self.neighbors.shape
        neighbors, reverse, mask, shifts = _empty(n_atoms, max_neighbors)
        rows, columns = np.divmod(self.reverse, old_neighbors)
        block = (slice(0, old_atoms), slice(0, old_neighbors))
        neighbors[block] = self.neighbors
        reverse[block] = rows * max_neighbors + columns
        mask[block] = self.mask
        shifts[block] = self.shifts
        return NeighborMatrix(neighbors, reverse, mask, shifts)

    @staticmethod
    def empty(n_atoms: int, max_neighbors: int) -> NeighborMatrix:
        """No neighbours at all."""
        return NeighborMatrix(*_empty(n_atoms, max_neighbors))

    @staticmethod
    def joined(matrices: Sequence[NeighborMatrix]) -> NeighborMatrix:
        """Stack matrices of one shape, renumbering atoms and slots."""
        n_atoms, max_neighbors = matrices[0].neighbors.shape
        offsets = np.arange(len(matrices))[:, None, None] * n_atoms
        neighbors = np.stack([matrix.neighbors for matrix in matrices]) + offsets
        reverse = np.stack([matrix.reverse for matrix in matrices]) + offsets * max_neighbors
        return NeighborMatrix(
            neighbors.reshape(-1, max_neighbors),
            reverse.reshape(-1, max_neighbors),
            np.concatenate([matrix.mask for matrix in matrices]),
            np.concatenate([matrix.shifts for matrix in matrices]),
        )


def uses_all_pairs(atoms: Atoms) -> bool:
    """Whether the neighbours of a system are all its other atoms, whatever its geometry."""
    return len(atoms) <= ALL_PAIRS_MAX_ATOMS and not atoms.pbc.any()


def neighbor_matrix(atoms: Atoms, cutoff: float, skin: float = 0.0) -> NeighborMatrix:
    """Neighbours of one system.

    A molecule of at most `ALL_PAIRS_MAX_ATOMS` gets every other atom. Anything larger, or periodic in any
    direction, gets all images within ``cutoff + skin`` (both in Å).
    """
    n_atoms = len(atoms)
    if uses_all_pairs(atoms):
        source = np.repeat(np.arange(n_atoms), n_atoms - 1)
        column = np.tile(np.arange(n_atoms - 1), n_atoms)
        target = column + (column >= source)
        shift = np.zeros((len(source), 3), dtype=np.int64)
        columns = 1
    else:
        source, target, shift = primitive_neighbor_list(
            "ijS", atoms.pbc, atoms.cell, atoms.positions, cutoff + skin, self_interaction=False
        )
        columns = LIST_COLUMNS
    return _from_pairs(n_atoms, source, target, shift, columns)


def _from_pairs(n_atoms: int, source: IntArray, target: IntArray, shift: IntArray, columns: int) -> NeighborMatrix:
    """Lay out directed pairs (both directions present) as a matrix whose width is a multiple of ``columns``."""
    # A total order on (row, neighbour, shift); sorting the reversed keys finds the reversed pair's place in it.
    order = np.lexsort((*shift.T[::-1], target, source))
    source, target, shift = source[order], target[order], shift[order]
    counts = np.bincount(source, minlength=n_atoms)
    max_neighbors = columns * max(1, -(-int(counts.max(initial=0)) // columns))
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    column = np.arange(len(source)) - first[source]
    slot = source * max_neighbors + column

    neighbors, reverse, mask, shifts = _empty(n_atoms, max_neighbors)
    neighbors[source, column] = target
    mask[source, column] = True
    shifts[source, column] = shift
    reversed_order = np.lexsort((*(-shift.T[::-1]), source, target))
    reverse.reshape(-1)[slot[reversed_order]] = slot
    return NeighborMatrix(neighbors, reverse, mask, shifts)


def _empty(n_atoms: int, max_neighbors: int) -> tuple[IntArray, IntArray, BoolArray, FloatArray]:
    shape = (n_atoms, max_neighbors)
    return (
        np.broadcast_to(np.arange(n_atoms)[:, None], shape).copy(),
        np.arange(n_atoms * max_neighbors).reshape(shape),
        np.zeros(shape, dtype=bool),
        np.zeros((*shape, 3)),
    )


class _Gather(torch.autograd.Function):
    """values[neighbors] whose adjoint is a gather and a sum instead of a scatter."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, neighbors: Tensor, reverse: Tensor) -> Tensor:
        ctx.save_for_backward(neighbors, reverse)
        return values[neighbors]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        neighbors, reverse = ctx.saved_tensors
        return _SumReverse.apply(grads[0], neighbors, reverse), None, None  # type: ignore[no-untyped-call]


class _SumReverse(torch.autograd.Function):
    """Sum over each atom's neighbours of what those hold for it: the adjoint of `_Gather`."""

    @staticmethod
    def forward(ctx: Any, edges: Tensor, neighbors: Tensor, reverse: Tensor) -> Tensor:
        ctx.save_for_backward(neighbors, reverse)
        return edges.flatten(0, 1)[reverse].sum(dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        neighbors, reverse = ctx.saved_tensors
        return _Gather.apply(grads[0], neighbors, reverse), None, None  # type: ignore[no-untyped-call]


def gather_neighbors(values: Tensor, neighbors: Tensor, reverse: Tensor) -> Tensor:
    """Each atom's neighbours' values, differentiable any number of times without a scatter.

    Args:
        values: [n_atoms, ...].
        neighbors: [n_atoms, max_neighbors].
        reverse: [n_atoms, max_neighbors].

    Returns:
        [n_atoms, max_neighbors, ...]; an empty slot holds the atom's own value.
    """
    result: Tensor = _Gather.apply(values, neighbors, reverse)  # type: ignore[no-untyped-call]
    return result
