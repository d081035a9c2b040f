"""The neighbour layout: a matrix with a row per atom and a column per neighbour.

Every pair has two slots: (i, k) in the row of atom i and (j, l) in the row of atom j. ``reverse`` maps each slot to the
other. An empty slot points at its own atom and is its own reverse. ``reverse`` is therefore an involution, and the
adjoint of gathering from neighbours is again a gather followed by a sum over the neighbour axis. Nothing is scattered:
there are no atomics, the same input gives the same bits, and the compiler can fuse both directions.

For a model that has shorter cutoffs besides the longest, each row of a list is in order of distance. The pairs within a
shorter cutoff are then in the first columns, and `first_columns` makes a matrix of the same layout of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from ase import Atoms
from ase.geometry import complete_cell
from torch import Tensor

from mlff_exp.structures.sizes import ALL_PAIRS_MAX_ATOMS

# The number of columns of a list is a multiple of this, so that its shape and the compiled graph rarely change.
LIST_COLUMNS = 16
# The same for the first columns of a list, which hold the pairs within a shorter cutoff.
NEAR_COLUMNS = 8
CANDIDATES_AT_ONCE = 4_000_000  # pairs and images whose distances are computed at a time, to bound memory


@dataclass(frozen=True)
class NeighborMatrix:
    """Neighbours of one system, or of several systems with equally many rows.

    Attributes:
        neighbors: [n_rows, max_neighbors], row of the neighbour.
        reverse: [n_rows, max_neighbors], flat index of the slot of the same pair in the neighbour's row.
        mask: [n_rows, max_neighbors], False where the slot is empty.
        shifts: [n_rows, max_neighbors, 3], integer multiples of the cell vectors, added to the neighbour's position.
        near_columns: for each shorter radius that was asked for, how many of the first columns hold all pairs within.
    """

    neighbors: Tensor
    reverse: Tensor
    mask: Tensor
    shifts: Tensor
    near_columns: tuple[int, ...] = ()

    def to(self, device: torch.device) -> NeighborMatrix:
        """Return the same matrix on another device."""
        tensors = {name: getattr(self, name).to(device) for name in ("neighbors", "reverse", "mask", "shifts")}
        return replace(self, **tensors)

    @property
    def max_neighbors(self) -> int:
        """Number of columns."""
        return self.neighbors.shape[1]

    def padded(self, n_atoms: int, max_neighbors: int) -> NeighborMatrix:
        """Return the same neighbours in a larger matrix; new slots are empty."""
        rows, columns = self.neighbors.shape
        larger = NeighborMatrix.empty(n_atoms, max_neighbors, self.mask.device)
        larger.neighbors[:rows, :columns] = self.neighbors
        larger.reverse[:rows, :columns] = self.reverse // columns * max_neighbors + self.reverse % columns
        larger.mask[:rows, :columns] = self.mask
        larger.shifts[:rows, :columns] = self.shifts
        return replace(larger, near_columns=self.near_columns)

    @staticmethod
    def empty(n_atoms: int, max_neighbors: int, device: torch.device | str = "cpu") -> NeighborMatrix:
        """Return a matrix without neighbours."""
        atoms = torch.arange(n_atoms, device=device)
        return NeighborMatrix(
            atoms.unsqueeze(1).repeat(1, max_neighbors),
            torch.arange(n_atoms * max_neighbors, device=device).view(n_atoms, max_neighbors),
            torch.zeros(n_atoms, max_neighbors, dtype=torch.bool, device=device),
            torch.zeros(n_atoms, max_neighbors, 3, dtype=torch.float64, device=device),
        )

    @staticmethod
    def stack(matrices: Sequence[NeighborMatrix]) -> NeighborMatrix:
        """Stack matrices of one shape, with rows and slots renumbered."""
        n_atoms, max_neighbors = matrices[0].neighbors.shape
        offsets = torch.arange(len(matrices), device=matrices[0].mask.device).view(-1, 1, 1) * n_atoms
        return NeighborMatrix(
            (torch.stack([matrix.neighbors for matrix in matrices]) + offsets).flatten(0, 1),
            (torch.stack([matrix.reverse for matrix in matrices]) + offsets * max_neighbors).flatten(0, 1),
            torch.cat([matrix.mask for matrix in matrices]),
            torch.cat([matrix.shifts for matrix in matrices]),
            tuple(max(columns) for columns in zip(*(matrix.near_columns for matrix in matrices), strict=True)),
        )


def uses_all_pairs(atoms: Atoms) -> bool:
    """Return whether all other atoms of a system are its neighbours, whatever the geometry."""
    return len(atoms) <= ALL_PAIRS_MAX_ATOMS and not atoms.pbc.any()


@functools.cache
def all_pairs(n_atoms: int) -> NeighborMatrix:
    """Return a matrix, on the CPU, in which all other atoms are neighbours."""
    source = torch.arange(n_atoms).repeat_interleave(n_atoms - 1)
    column = torch.arange(n_atoms - 1).repeat(n_atoms)
    target = column + (column >= source)
    return _from_pairs(n_atoms, source, target, torch.zeros(len(source), 3, dtype=torch.int64), 1)


def neighbor_list(
    positions: Tensor, cell: Tensor, pbc: Tensor, radius: float, near: Sequence[float] = ()
) -> NeighborMatrix:
    """Find all pairs and images nearer than a radius, on the device of the positions.

    Args:
        positions: [n_atoms, 3] Å, FP64, inside the cell or not.
        cell: [3, 3] Å, FP64; rows of directions that are not periodic may be zero.
        pbc: [3] bool.
        radius: Å; it may exceed the size of the cell.
        near: shorter radii, Å. If there are any, each row is in order of distance.

    Returns:
        A matrix of n_atoms rows.
    """
    n_atoms, device = len(positions), positions.device
    full_cell = torch.from_numpy(complete_cell(cell.cpu().numpy())).to(device)
    inverse = torch.linalg.inv(full_cell)
    # Along each axis the nearest image of a pair is at most half a cell away. Any image within the radius is at most
    # radius / height further.
    height = 1 / inverse.norm(dim=0)
    reach = torch.where(pbc, (radius / height + 0.5).floor(), 0.0).long().tolist()
    images = torch.cartesian_prod(*(torch.arange(-n, n + 1, device=device) for n in reach)).view(-1, 3)
    # Only one of the two directions of a pair is searched; the images of an atom itself are pairs of opposite vectors.
    forward = torch.arange(len(images), device=device) > len(images) // 2
    atoms = torch.arange(n_atoms, device=device)

    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for first in atoms.split(max(1, CANDIDATES_AT_ONCE // (n_atoms * len(images)))):
        difference = positions - positions[first].unsqueeze(1)
        nearest = torch.where(pbc, -(difference @ inverse).round(), 0.0)
        shift = nearest.unsqueeze(2) + images
        squared = (difference.unsqueeze(2) + shift @ full_cell).square().sum(dim=-1)
        once = (first.unsqueeze(1) < atoms).unsqueeze(2) | (first.unsqueeze(1) == atoms).unsqueeze(2) & forward
        row, second, image = ((squared < radius**2) & once).nonzero(as_tuple=True)
        found.append((first[row], second, shift[row, second, image].long(), squared[row, second, image]))
    source, target, shift, squared = (torch.cat(parts) for parts in zip(*found, strict=True))
    source, target, shift = torch.cat([source, target]), torch.cat([target, source]), torch.cat([shift, -shift])
    if not near:
        return _from_pairs(n_atoms, source, target, shift, LIST_COLUMNS)
    squared = squared.repeat(2)  # both directions of a pair have the same bits, and are near or not together
    matrix = _from_pairs(n_atoms, source, target, shift, LIST_COLUMNS, squared)
    counts = [int(torch.bincount(source[squared < shorter**2], minlength=n_atoms).max()) for shorter in near]
    return replace(matrix, near_columns=tuple(NEAR_COLUMNS * max(1, math.ceil(n / NEAR_COLUMNS)) for n in counts))


def first_columns(
    neighbors: Tensor, reverse: Tensor, mask: Tensor, n_columns: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Make a matrix of the first columns of a matrix of neighbours.

    A pair stays if both of its slots are in these columns. Other slots become empty.

    Args:
        neighbors: [n_rows, max_neighbors].
        reverse: [n_rows, max_neighbors].
        mask: [n_rows, max_neighbors].
        n_columns: how many columns to keep.

    Returns:
        ``neighbors``, ``reverse`` and ``mask`` [n_rows, n_columns] of the smaller matrix, and where a slot stayed.
    """
    n_rows, width = neighbors.shape
    rows = torch.arange(n_rows, device=neighbors.device).unsqueeze(1)
    slots = rows * n_columns + torch.arange(n_columns, device=neighbors.device)
    reverse = reverse[:, :n_columns]
    column = reverse % width
    stays = column < n_columns
    return (
        torch.where(stays, neighbors[:, :n_columns], rows),
        torch.where(stays, reverse // width * n_columns + column, slots),
        mask[:, :n_columns] & stays,
        stays,
    )


def _from_pairs(
    n_atoms: int, source: Tensor, target: Tensor, shift: Tensor, columns: int, squared: Tensor | None = None
) -> NeighborMatrix:
    """Lay out directed pairs, both directions present, as a matrix whose width is a multiple of ``columns``.

    Rows are in order of the neighbours, or of squared distances where those are given.
    """
    # One number for each pair and image. Sorting by it puts pairs in order of rows, and finds the reversed pair.
    span = 2 * shift.abs().amax(dim=0) + 1 if len(shift) else torch.ones(3, dtype=torch.int64, device=shift.device)
    offset = shift + span // 2
    image = (offset[:, 0] * span[1] + offset[:, 1]) * span[2] + offset[:, 2]
    n_images = span.prod()
    key, order = ((source * n_atoms + target) * n_images + image).sort()
    source, target, shift, image = source[order], target[order], shift[order], image[order]

    counts = torch.bincount(source, minlength=n_atoms)
    max_neighbors = columns * max(1, math.ceil(int(counts.max()) / columns))
    place = torch.arange(len(source), device=source.device)
    if squared is not None:
        nearest_first = squared[order].argsort(stable=True)
        nearest_first = nearest_first[source[nearest_first].argsort(stable=True)]
        place[nearest_first] = place.clone()
    column = place - (counts.cumsum(0) - counts)[source]
    slot = source * max_neighbors + column
    matrix = NeighborMatrix.empty(n_atoms, max_neighbors, source.device)
    matrix.neighbors[source, column] = target
    matrix.mask[source, column] = True
    matrix.shifts[source, column] = shift.double()
    reversed_key = (target * n_atoms + source) * n_images + (n_images - 1 - image)
    matrix.reverse[source, column] = slot[torch.searchsorted(key, reversed_key)]
    return matrix


class _Gather(torch.autograd.Function):
    """values[neighbors], whose adjoint is a gather and a sum instead of a scatter."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, neighbors: Tensor, reverse: Tensor) -> Tensor:
        ctx.save_for_backward(neighbors, reverse)
        return values[neighbors]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        neighbors, reverse = ctx.saved_tensors
        return _SumReverse.apply(grads[0], neighbors, reverse), None, None  # type: ignore[no-untyped-call]


class _SumReverse(torch.autograd.Function):
    """Sum over each atom's neighbours of the values in their reverse slots: the adjoint of `_Gather`."""

    @staticmethod
    def forward(ctx: Any, edges: Tensor, neighbors: Tensor, reverse: Tensor) -> Tensor:
        ctx.save_for_backward(neighbors, reverse)
        return edges.flatten(0, 1)[reverse].sum(dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        neighbors, reverse = ctx.saved_tensors
        return _Gather.apply(grads[0], neighbors, reverse), None, None  # type: ignore[no-untyped-call]


def gather_neighbors(values: Tensor, neighbors: Tensor, reverse: Tensor) -> Tensor:
    """Return the values of each atom's neighbours; differentiable any number of times without a scatter.

    Args:
        values: [n_rows, ...].
        neighbors: [n_rows, max_neighbors].
        reverse: [n_rows, max_neighbors].

    Returns:
        [n_rows, max_neighbors, ...]; an empty slot holds the value of its own row.
    """
    result: Tensor = _Gather.apply(values, neighbors, reverse)  # type: ignore[no-untyped-call]
    return result
