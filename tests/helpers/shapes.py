"""Checks that tensors have the shapes and types that the docstrings of their classes name."""

from __future__ import annotations

import torch
from torch import Tensor

from mlff_exp.dynamics.state import MDState
from mlff_exp.engines.prediction import Prediction
from mlff_exp.structures.batch import AtomicBatch


def assert_tensor(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Fail with the name of a tensor that has another shape or type."""
    assert (tuple(tensor.shape), tensor.dtype) == (shape, dtype), name


def assert_batch(batch: AtomicBatch) -> None:
    """Shapes, types and ranges of indices of a batch."""
    rows, columns = batch.neighbors.shape
    assert rows == batch.n_systems * batch.n_slots
    assert_tensor("positions", batch.positions, (rows, 3), torch.float64)
    assert_tensor("atomic_numbers", batch.atomic_numbers, (rows,), torch.int64)
    assert_tensor("cell", batch.cell, (batch.n_systems, 3, 3), torch.float64)
    assert_tensor("pbc", batch.pbc, (batch.n_systems, 3), torch.bool)
    assert_tensor("neighbors", batch.neighbors, (rows, columns), torch.int64)
    assert_tensor("reverse", batch.reverse, (rows, columns), torch.int64)
    assert_tensor("mask", batch.mask, (rows, columns), torch.bool)
    if batch.shifts is not None:
        assert_tensor("shifts", batch.shifts, (rows, columns, 3), torch.float64)
        assert torch.equal(batch.shifts, batch.shifts.round()), "shifts are integers"
    assert (batch.shifts is not None) == bool(batch.pbc.any()), "shifts"
    holds = batch.per_system(batch.is_atom).any(dim=1)
    assert batch.fully_periodic == bool(batch.pbc[holds].all()), "fully_periodic"
    assert ((batch.neighbors >= 0) & (batch.neighbors < rows)).all(), "neighbors"
    assert ((batch.reverse >= 0) & (batch.reverse < rows * columns)).all(), "reverse"
    assert not batch.mask[~batch.is_atom].any(), "padding has no neighbours"


def assert_prediction(prediction: Prediction, batch: AtomicBatch) -> None:
    """Shapes and types of what an engine returns for a batch; padding feels nothing."""
    assert_tensor("energy", prediction.energy, (batch.n_systems,), torch.float64)
    assert_tensor("forces", prediction.forces, (len(batch.positions), 3), torch.float64)
    assert (prediction.forces[~batch.is_atom] == 0).all(), "forces of padding"
    if prediction.stress is not None:
        assert_tensor("stress", prediction.stress, (batch.n_systems, 3, 3), torch.float64)
        assert torch.equal(prediction.stress, prediction.stress.transpose(1, 2)), "stress is symmetric"


def assert_state(state: MDState, batch: AtomicBatch) -> None:
    """Shapes and types of a state of the systems of a batch."""
    for name in ("positions", "velocities", "forces"):
        assert_tensor(name, getattr(state, name), (len(batch.positions), 3), torch.float64)
    assert_tensor("energy", state.energy, (batch.n_systems,), torch.float64)


def assert_edges(edges: tuple[Tensor, Tensor], batch: AtomicBatch, dtype: torch.dtype) -> None:
    """Shapes and types of a list of edges; receivers and senders are rows of the batch."""
    index, vectors = edges
    n_edges = batch.neighbors.numel()
    assert_tensor("index", index, (2, n_edges), torch.int64)
    assert_tensor("vectors", vectors, (n_edges, 3), dtype)
    assert ((index >= 0) & (index < len(batch.positions))).all(), "index"
    assert (index[0].diff() >= 0).all(), "receivers are sorted"
