"""Bonds of a structure, by the distance of its atoms; also across a periodic boundary."""

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

BOND_TOLERANCE = 1.3  # a bond is a pair closer than this times the sum of the covalent radii
CLEAR_CHANGE = 0.15  # of the sum of the covalent radii; a pair that changes less is at the limit, and no other bond

Integers = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bonds:
    """Bonds of one structure, each once.

    Attributes:
        first, second: [n_bonds] indices of atoms.
        images: [n_bonds, 3] whole numbers of cell vectors from the second atom to its image that is bonded.
        shifts: [n_bonds, 3] the same, Å.
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
    """All pairs of an atom and another, or its periodic image, closer than `BOND_TOLERANCE` times their radii."""
    first, second, images, lengths = neighbor_list("ijSd", atoms, BOND_TOLERANCE * covalent_radii[atoms.numbers])
    # Every pair is found from both ends; what lies between an atom and its own image is as long as the cell is.
    once = first < second
    first, second, images, lengths = (part[once] for part in (first, second, images, lengths))
    order = np.lexsort((*images.T, second, first))
    first, second, images, lengths = (part[order] for part in (first, second, images, lengths))
    return Bonds(first, second, images, images @ np.asarray(atoms.cell), lengths)


def changed_bonds(before: Atoms, after: Atoms) -> list[str]:
    """What became of the bonds of a structure, such as ``C0–H3 broke (1.09 to 3.20 Å)``.

    Args:
        before: with the same atoms and the same cell as ``after``.
        after: where they went, not wrapped.
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
    """Bonds of a batch, on the CPU unless it was moved.

    Attributes:
        first, second: [n_bonds] rows of the batch.
        shifts: [n_bonds, 3] Å to the image of the second atom that was bonded at the start.
        lengths: [n_bonds] at the start, Å.
        system: [n_bonds] the system that a bond is in.
    """

    first: Tensor
    second: Tensor
    shifts: Tensor
    lengths: Tensor
    system: Tensor

    def to(self, device: torch.device) -> BatchBonds:
        """The same bonds on a device."""
        return BatchBonds(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def change(self, positions: Tensor) -> Tensor:
        """[…, n_bonds] Å by which lengths differ from those at the start.

        Args:
            positions: […, n_atoms, 3] Å, not wrapped into the cell.
        """
        arrows = positions[..., self.second, :] + self.shifts - positions[..., self.first, :]
        change: Tensor = (arrows.norm(dim=-1) - self.lengths).abs()
        return change


def bonds_of_batch(systems: Sequence[Atoms], n_slots: int) -> BatchBonds:
    """The bonds of all systems, as they are now.

    Args:
        systems: in the order of the batch.
        n_slots: rows of the batch that each system has.
    """
    found = [find_bonds(atoms) for atoms in systems]
    offsets = [index * n_slots for index in range(len(found))]
    columns = (
        [bonds.first + offset for bonds, offset in zip(found, offsets, strict=True)],
        [bonds.second + offset for bonds, offset in zip(found, offsets, strict=True)],
        [bonds.shifts for bonds in found],
        [bonds.lengths for bonds in found],
        [np.full(len(bonds), index) for index, bonds in enumerate(found)],
    )
    return BatchBonds(*(torch.from_numpy(np.concatenate(column)) for column in columns))
