"""What an engine says of a batch, as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mlff_exp.structures.batch import AtomicBatch
from tests.helpers.shapes import assert_batch, assert_prediction


def predicted(engine: Any, batch: AtomicBatch) -> tuple[np.ndarray, np.ndarray]:
    """Energies [n_systems] eV, and forces [n_systems, n_slots, 3] eV/Å."""
    assert_batch(batch)
    prediction = engine(batch)
    assert_prediction(prediction, batch)
    forces = batch.per_system(prediction.forces)
    return prediction.energy.cpu().numpy(), forces.cpu().numpy()


def moved(batch: AtomicBatch) -> AtomicBatch:
    """The same list at positions within its skin."""
    step = torch.randn(batch.positions.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return batch.with_positions(batch.positions + 0.05 * step)
