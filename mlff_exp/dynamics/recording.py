"""The frames that are recorded of a trajectory."""

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
    """The recorded frames of a batch of systems.

    Attributes:
        steps: [n_frames].
        times_ps: [n_frames].
        potential: [n_frames, n_systems] eV.
        kinetic: [n_frames, n_systems] eV.
        temperature: [n_frames, n_systems] K on internal degrees of freedom.
        displacement: [n_frames, n_systems] largest distance of an atom from its start, Å.
        bond_change: [n_frames, n_systems] largest change of a bond's length since the start, Å; 0 without bonds.
        momentum: [n_frames, n_systems] ‖Σ p‖ / Σ ‖p‖.
        positions: [n_frames, n_systems, n_slots, 3] Å.
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


def columns_of_frame(state: MDState) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parts of a state that a frame keeps: energy, positions and velocities.

    Everything else in a `Trajectory` is computed from these three.
    """
    return state.energy, state.positions, state.velocities


class FrameTransfer:
    """A copy of frames to the CPU, which does not wait for the device.

    Args:
        frames: columns of the frames, [n_frames, ...] each.
    """

    def __init__(self, frames: list[Tensor]) -> None:
        self._event = None
        if frames[0].is_cuda:
            # The memory is pinned, so that the copy waits for the device and not the other way round.
            self._host = [torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in frames]
            for host, part in zip(self._host, frames, strict=True):
                host.copy_(part, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._host = [part.clone() for part in frames]

    def result(self) -> tuple[Tensor, ...]:
        """Wait for the frames, and return their columns on the CPU, [n_frames, ...] each."""
        if self._event is not None:
            self._event.synchronize()
        return tuple(self._host)


def join_columns(blocks: Sequence[Columns]) -> Columns:
    """Join blocks of columns into one block."""
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
