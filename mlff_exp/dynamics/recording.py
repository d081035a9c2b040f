"""What is recorded of a trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlff_exp.dynamics.state import Columns, FloatArray, MDState


@dataclass(frozen=True)
class Trajectory:
    """What was recorded.

    Attributes:
        steps: [n_records].
        times_ps: [n_records].
        potential: [n_records, n_systems] eV.
        kinetic: [n_records, n_systems] eV.
        temperature: [n_records, n_systems] K on internal degrees of freedom.
        displacement: [n_records, n_systems] largest distance of an atom from its start, Å.
        bond_change: [n_records, n_systems] largest change of a bond's length since the start, Å; 0 without bonds.
        momentum: [n_records, n_systems] ‖Σ p‖ / Σ ‖p‖.
        positions: [n_records, n_systems, n_slots, 3] Å.
        velocities: the same shape, ASE's units.
        blow_up: what ended the run early, or None.
    """

    steps: npt.NDArray[np.int64]
    times_ps: FloatArray
    potential: FloatArray
    kinetic: FloatArray
    temperature: FloatArray
    displacement: FloatArray
    bond_change: FloatArray
    momentum: FloatArray
    positions: FloatArray
    velocities: FloatArray
    blow_up: str | None


def recorded_columns(state: MDState) -> tuple[Tensor, Tensor, Tensor]:
    """What a record keeps of a state; all else follows from it."""
    return state.energy, state.positions, state.velocities


class Records:
    """Records on their way to the CPU."""

    def __init__(self, records: list[Tensor]) -> None:
        self._event = None
        if records[0].is_cuda:
            # Pinned, so that the copy waits for the device and not the other way round.
            self._host = [torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in records]
            for host, part in zip(self._host, records, strict=True):
                host.copy_(part, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._host = [part.clone() for part in records]

    def result(self) -> tuple[Tensor, ...]:
        """[n_records, ...] each, when they have arrived."""
        if self._event is not None:
            self._event.synchronize()
        return tuple(self._host)


def joined_columns(blocks: Sequence[Columns]) -> Columns:
    """Blocks of columns as one block."""
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
