"""Where a batch of trajectories stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

Columns = dict[str, Tensor]  # of `recording.Trajectory`, by the names there: [n_records, ...] each
FloatArray = npt.NDArray[np.float64]


@dataclass
class MDState:
    """Where a batch of trajectories stands; changed in place.

    Attributes:
        positions: [n_rows, 3] Å, FP64.
        velocities: [n_rows, 3] ASE units, FP64.
        forces: [n_rows, 3] eV/Å, FP64.
        energy: [n_systems] potential energy, eV, FP64.
        step: steps done.
    """

    positions: Tensor
    velocities: Tensor
    forces: Tensor
    energy: Tensor
    step: int = 0

    def copy(self) -> MDState:
        """Another state at the same point."""
        return MDState(
            self.positions.clone(), self.velocities.clone(), self.forces.clone(), self.energy.clone(), self.step
        )

    def become(self, other: MDState) -> None:
        """Go to the point of another state, in the same tensors."""
        for name in ("positions", "velocities", "forces", "energy"):
            getattr(self, name).copy_(getattr(other, name))
        self.step = other.step


@dataclass(frozen=True)
class Snapshot:
    """Where a run is, so that it can go on from there.

    Attributes:
        state: where it stands.
        steps: of the records so far.
        columns: the records so far, by their names in `recording.Trajectory`, on the CPU.
    """

    state: MDState
    steps: list[int]
    columns: Columns
