"""Bonds of a structure, found by the distances of its atoms, also across periodic boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from torch import Tensor

from mlff_exp.structures import BOND_TOLERANCE

CLEAR_CHANGE = 0.15  # of the sum of the covalent radii; a smaller change at the limit makes or breaks no bond

Integers = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bonds:
    """The bonds of one structure, each listed once.

    Attributes:
        first, second: [n_bonds] indices of atoms.
        images: [n_bonds, 3] integer numbers of cell vectors from the second atom to its image that is bonded.
        shifts: [n_bonds, 3] the same vectors, Å.
        lengths: [n_bonds] Å.
    """

    first: Integers
    second: Integers
    images: Integers
    shifts: Floats
    lengths: Floats

    def __len__(self) -> int:
        return len(self.first)


def find_bonds(atoms: Atoms) -> Bonds:
    """Find all pairs of two atoms, or of one and a periodic image, closer than `BOND_TOLERANCE` times their radii.

    Args:
        atoms: the structure.
    """
    first, second, images, lengths = neighbor_list("ijSd", atoms, BOND_TOLERANCE * covalent_radii[atoms.numbers])
    # ASE lists every pair from both ends. The distance of an atom to its own image depends on the cell alone.
    once = first < second
    first, second, images, lengths = (part[once] for part in (first, second, images, lengths))
    order = np.lexsort((*images.T, second, first))
    first, second, images, lengths = (part[order] for part in (first, second, images, lengths))
    return Bonds(first, second, images, images @ np.asarray(atoms.cell), lengths)


def changed_bonds(before: Atoms, after: Atoms) -> list[str]:
    """List the bonds that broke or formed, such as ``C0–H3 broke (1.09 to 3.20 Å)``.

    Args:
        before: the structure at first.
        after: the same atoms in the same cell later, not wrapped into the cell.
    """
    found = []
    for what, bonds in (("broke", find_bonds(before)), ("formed", find_bonds(after))):
        for i, j, shift in zip(bonds.first, bonds.second, bonds.shifts, strict=True):
            was, now = (
                float(np.linalg.norm(atoms.positions[j] + shift - atoms.positions[i])) for atoms in (before, after)
            )
            radii = float(covalent_radii[before.numbers[[i, j]]].sum())
            other_side = min(was, now) < BOND_TOLERANCE * radii <= max(was, now)
            if other_side and abs(now - was) > CLEAR_CHANGE * radii:
                found.append(f"{before.symbols[i]}{i}–{before.symbols[j]}{j} {what} ({was:.2f} to {now:.2f} Å)")
    return found


@dataclass(frozen=True)
class BatchBonds:
    """The bonds of a batch, on the CPU until `to` moves them.

    Attributes:
        first, second: [n_bonds] rows of the batch.
        shifts: [n_bonds, 3] Å to the image of the second atom that was bonded at the start.
        lengths: [n_bonds] at the start, Å.
        system: [n_bonds] index of the system that holds the bond.
    """

    first: Tensor
    second: Tensor
    shifts: Tensor
    lengths: Tensor
    system: Tensor

    def to(self, device: torch.device) -> BatchBonds:
        """Return the same bonds on a device."""
        return BatchBonds(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def change(self, positions: Tensor) -> Tensor:
        """Return by how much the length of each bond differs from that at the start.

        Args:
            positions: […, n_rows, 3] Å, not wrapped into the cell.

        Returns:
            […, n_bonds] Å, at least 0.
        """
        arrows = positions[..., self.second, :] + self.shifts - positions[..., self.first, :]
        change: Tensor = (arrows.norm(dim=-1) - self.lengths).abs()
        return change


def find_batch_bonds(systems: Sequence[Atoms], n_slots: int, skipped: Sequence[bool] = ()) -> BatchBonds:
    """Find the bonds of all systems at their present positions.

    Args:
        systems: the structures in the order of the batch.
        n_slots: the number of rows of each system in the batch.
        skipped: whether the bonds of each system are left out; none are by default.
    """
    left_out = skipped or [False] * len(systems)
    found = [find_bonds(atoms[:0] if skip else atoms) for atoms, skip in zip(systems, left_out, strict=True)]
    offsets = [index * n_slots for index in range(len(found))]
    columns = (
        [bonds.first + offset for bonds, offset in zip(found, offsets, strict=True)],
        [bonds.second + offset for bonds, offset in zip(found, offsets, strict=True)],
        [bonds.shifts for bonds in found],
        [bonds.lengths for bonds in found],
        [np.full(len(bonds), index) for index, bonds in enumerate(found)],
    )
    return BatchBonds(*(torch.from_numpy(np.concatenate(column)) for column in columns))
