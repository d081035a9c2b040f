"""Networks on edges, and structures for them, that several tests use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms
from torch import Tensor, nn

from mlff_exp.models.spec import Capabilities
from mlff_exp.structures.batch import AtomicBatch
from mlff_exp.structures.neighbors import NeighborMatrix


class TwoRanges(nn.Module):
    """Messages along short edges, with directions; then pair energies along long ones."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.cutoffs = (2.5, 4.7)
        self.elements = {1: -13.6, 6: -1030.0, 8: -2040.0}
        self.embed = nn.Embedding(9, width)
        self.send = nn.Linear(width, width)
        self.pair = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(
        self, numbers: Tensor, system: Tensor, n_systems: int, edges: Sequence[tuple[Tensor, Tensor]]
    ) -> Tensor:
        (near, short), (far, long) = edges
        atoms = self.embed(numbers)
        gates = self.send(atoms)[near[1]] * envelope(short, self.cutoffs[0])
        zeros = torch.zeros(len(numbers), 3, gates.shape[1], dtype=short.dtype, device=short.device)
        turned = zeros.index_add(0, near[0], short.unsqueeze(-1) * gates.unsqueeze(1)).square().sum(dim=1)
        atoms = atoms + torch.tanh(turned)
        energies = self.pair(torch.cat([atoms[far[0]], atoms[far[1]]], -1)) * envelope(long, self.cutoffs[1])
        return zeros[:, 0, 0].index_add(0, far[0], energies.squeeze(-1))


class OwnForces(nn.Module):
    """A Morse potential that computes its forces itself.

    Args:
        mixing: how much the force of a pair depends on the surroundings of both atoms, as no gradient of the energy
            would. Such forces sum to zero and turn with the molecule, as those of direct-force models do.
    """

    capabilities = Capabilities(forces="own")
    depth, steepness, length = 3.0, 2.0, 1.1  # eV, 1/Å, Å

    def __init__(self, mixing: float = 0.0) -> None:
        super().__init__()
        self.cutoffs, self.elements, self.mixing = (5.0,), None, mixing
        self.weight = nn.Parameter(torch.ones(()))

    def forward(
        self, numbers: Tensor, system: Tensor, n_systems: int, edges: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        ((receiver, sender), vectors), *_ = edges
        distances = vectors.norm(dim=-1, keepdim=True)
        decay = torch.exp(-self.steepness * (distances - self.length))
        fade, inside = envelope(vectors, self.cutoffs[0]), 1 - (distances / self.cutoffs[0]) ** 2
        morse = self.depth * (decay**2 - 2 * decay)
        slope = 2 * self.steepness * self.depth * (decay - decay**2) * fade
        slope = slope - 6 * distances / self.cutoffs[0] ** 2 * inside**2 * morse
        zeros = torch.zeros(len(numbers), 3, dtype=vectors.dtype, device=vectors.device)
        energies = zeros[:, 0].index_add(0, receiver, (0.5 * morse * fade).squeeze(-1))
        crowded = zeros[:, 0].index_add(0, receiver, fade.squeeze(-1))
        mixed = 1 + self.mixing * (crowded[receiver] + crowded[sender]).unsqueeze(-1)
        forces = zeros.index_add(0, receiver, slope * mixed * vectors / distances)
        return energies * self.weight, forces * self.weight


def direct_forces() -> OwnForces:
    """Make a model whose own forces are no gradient."""
    return OwnForces(mixing=0.1)


def envelope(vectors: Tensor, cutoff: float) -> Tensor:
    """[n_edges, 1]; smooth, and zero at the cutoff. No edge is longer."""
    return (1 - vectors.square().sum(-1, keepdim=True) / cutoff**2) ** 3


def random_structure(seed: int, *, periodic: bool) -> Atoms:
    """Up to eight atoms, one of them far from the others; cells are skewed and smaller than the cutoffs."""
    rng = np.random.default_rng(seed)
    n_atoms = int(rng.integers(1, 9))
    numbers = rng.choice([1, 6, 8], n_atoms)
    grid = np.argwhere(np.ones((2, 2, 2)))[:n_atoms] * 1.6 + rng.normal(scale=0.15, size=(n_atoms, 3))
    if not periodic:
        grid[-1] += 30.0
        return Atoms(numbers, grid)
    cell = np.diag(rng.uniform(3.2, 4.4, size=3)) + rng.uniform(-0.5, 0.5, size=(3, 3))
    return Atoms(numbers, grid, cell=cell, pbc=(True, *(rng.random(2) < 0.7)))


def crystal(seed: int, n_atoms: int = 4) -> Atoms:
    """A skewed cell, smaller than the cutoffs."""
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(3.2, 4.0, size=3)) + rng.uniform(-0.4, 0.4, size=(3, 3))
    scaled = np.argwhere(np.ones((2, 2, 2)))[:n_atoms] / 2 + rng.normal(scale=0.03, size=(n_atoms, 3))
    return Atoms(rng.choice([1, 6, 8], n_atoms), scaled @ cell, cell=cell, pbc=True)


def with_more_columns(batch: AtomicBatch, n_columns: int) -> AtomicBatch:
    """The same batch with empty columns behind its neighbours."""
    shifts = torch.zeros(*batch.neighbors.shape, 3) if batch.shifts is None else batch.shifts
    matrix = NeighborMatrix(batch.neighbors, batch.reverse, batch.mask, shifts.double())
    matrix = matrix.padded(len(batch.neighbors), batch.neighbors.shape[1] + n_columns)
    return replace(
        batch, neighbors=matrix.neighbors, reverse=matrix.reverse, mask=matrix.mask,
        shifts=None if batch.shifts is None else matrix.shifts,
    )  # fmt: skip
