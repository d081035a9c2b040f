"""Batches of few shapes from the structures of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms
from torch import Tensor

from mlff_exp.structures.batch import SLOT_STEP, AtomicBatch, collate
from mlff_exp.structures.datasets import Dataset
from mlff_exp.structures.sizes import ALL_PAIRS_MAX_ATOMS

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LabelledBatch:
    """A batch with its labels: energies [n_systems] eV, forces [n_rows, 3] eV/Å; forces on padding are zero."""

    batch: AtomicBatch
    energies: Tensor
    forces: Tensor


class Bucket:
    """Structures of similar size on a device, padded to equally many rows.

    In all of them every other row is a neighbour; only the mask of real atoms differs. All batches of a bucket have one
    shape, and little of it is padding.

    Args:
        dataset: the structures.
        members: [n] numbers of the structures in the dataset.
        n_slots: rows per structure.
        cutoff: cutoff of the model, Å.
    """

    def __init__(self, dataset: Dataset, members: npt.NDArray[np.int64], n_slots: int, cutoff: float) -> None:
        n, self.n_slots, self.cutoff, self.members = len(members), n_slots, cutoff, members
        numbers = np.zeros((n, n_slots), dtype=np.int64)
        positions, forces = np.zeros((n, n_slots, 3)), np.zeros((n, n_slots, 3))
        starts, all_positions, all_forces = dataset.starts, dataset.positions, dataset.forces
        for row, index in enumerate(members):
            count = dataset.counts[index]
            atoms = slice(starts[index], starts[index] + count)
            numbers[row, :count] = dataset.atomic_numbers[atoms]
            positions[row, :count] = all_positions[atoms]
            forces[row, :count] = all_forces[atoms]
        self.numbers, self.positions = torch.from_numpy(numbers), torch.from_numpy(positions)
        self.forces, self.energies = torch.from_numpy(forces), torch.from_numpy(dataset.energies[members])
        self._topology: dict[int, AtomicBatch] = {}

    def __len__(self) -> int:
        return len(self.energies)

    def to(self, device: torch.device) -> Bucket:
        """Move the tensors to a device, in place."""
        for name in ("numbers", "positions", "forces", "energies"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def take(self, index: Tensor) -> LabelledBatch:
        """The structures at ``index`` [n_systems]."""
        topology = self._shape(len(index))
        numbers = self.numbers[index].reshape(-1)
        is_atom = numbers > 0
        batch = replace(
            topology,
            positions=self.positions[index].reshape(-1, 3),
            atomic_numbers=numbers,
            mask=topology.mask & is_atom.unsqueeze(-1) & is_atom[topology.neighbors],
            sources=None,  # those of the topology are stand-ins
        )
        return LabelledBatch(batch, self.energies[index], self.forces[index].reshape(-1, 3))

    def _shape(self, n_systems: int) -> AtomicBatch:
        if n_systems not in self._topology:
            full = Atoms(numbers=np.ones(self.n_slots), positions=np.arange(3.0 * self.n_slots).reshape(-1, 3))
            self._topology[n_systems] = collate([full] * n_systems, self.cutoff, device=self.energies.device)
        return self._topology[n_systems]


def make_buckets(dataset: Dataset, cutoff: float, device: torch.device, slot_step: int = SLOT_STEP) -> list[Bucket]:
    """Sort the structures of a dataset into buckets by size, rounded up to multiples of ``slot_step`` rows.

    Raises:
        ValueError: a structure is too large to have all its other atoms as neighbours.
    """
    largest = int(dataset.counts.max())
    if largest > ALL_PAIRS_MAX_ATOMS:
        raise ValueError(f"a structure of {largest} atoms: packed batches hold up to {ALL_PAIRS_MAX_ATOMS}")
    slots = -(-dataset.counts.astype(np.int64) // slot_step) * slot_step
    return [Bucket(dataset, np.flatnonzero(slots == n), int(n), cutoff).to(device) for n in np.unique(slots)]


def slots_per_batch(device: torch.device) -> int:
    """Return how many rows a batch needs to use a device well without filling its memory, for energies and forces."""
    return 16384 if device.type == "cuda" else 4096


def pack_batches(
    dataset: Dataset,
    cutoff: float,
    device: torch.device,
    *,
    slot_step: int = SLOT_STEP,
    n_systems: int | None = None,
) -> Iterator[tuple[npt.NDArray[np.int64], AtomicBatch]]:
    """Yield every structure once: the numbers of some structures, and a batch that starts with them.

    Args:
        dataset: at least one structure.
        cutoff: cutoff of the model, Å.
        device: device of the batches.
        slot_step: as in `make_buckets`.
        n_systems: structures in every batch; the last batch of a bucket is filled up. By default as many as
            `slots_per_batch` allows.
    """
    for bucket in make_buckets(dataset, cutoff, device, slot_step):
        per_batch = n_systems or max(1, slots_per_batch(device) // bucket.n_slots)
        for first in range(0, len(bucket), per_batch):
            members = bucket.members[first : first + per_batch]
            wanted = torch.arange(first, first + (per_batch if n_systems else len(members)), device=device)
            yield members, bucket.take(wanted % len(bucket)).batch


def evaluate(
    function: Callable[[AtomicBatch], tuple[Tensor, Tensor]],
    dataset: Dataset,
    batches: Iterable[tuple[npt.NDArray[np.int64], AtomicBatch]],
) -> tuple[Array, Array]:
    """Compute energies and forces of every structure, in the order of the dataset.

    Args:
        function: batch → energies [n_systems] eV, forces [n_rows, 3] eV/Å.
        dataset: at least one structure.
        batches: batches of the dataset, from `pack_batches`.

    Returns:
        Energies [n_structures] eV and forces [sum of counts, 3] eV/Å.
    """
    energies, forces = np.empty(len(dataset)), np.empty((len(dataset.position_steps), 3))
    starts, counts = dataset.starts, dataset.counts
    for members, batch in batches:
        energy, force = function(batch)
        energies[members] = energy[: len(members)].cpu().numpy()
        padded = batch.per_system(force).cpu().numpy()
        for row, member in enumerate(members):
            forces[starts[member] : starts[member] + counts[member]] = padded[row, : counts[member]]
    return energies, forces
