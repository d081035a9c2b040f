"""The state of a batch of trajectories, and a snapshot from which a run can go on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

Columns = dict[str, Tensor]  # of `recording.Trajectory`, by the names there: [n_frames, ...] each
FloatArray = npt.NDArray[np.float64]


@dataclass
class MDState:
    """The positions, velocities, forces and energies of a batch of trajectories; changed in place.

    Attributes:
        positions: [n_rows, 3] Å, FP64.
        velocities: [n_rows, 3] ASE units, FP64.
        forces: [n_rows, 3] eV/Å, FP64.
        energy: [n_systems] potential energy, eV, FP64.
        step: the number of steps that were done.
    """

    positions: Tensor
    velocities: Tensor
    forces: Tensor
    energy: Tensor
    step: int = 0

    def copy(self) -> MDState:
        """Return a copy that shares no tensor."""
        return MDState(
            self.positions.clone(), self.velocities.clone(), self.forces.clone(), self.energy.clone(), self.step
        )

    def become(self, other: MDState) -> None:
        """Copy the values of another state into the tensors of this one."""
        for name in ("positions", "velocities", "forces", "energy"):
            getattr(self, name).copy_(getattr(other, name))
        self.step = other.step


@dataclass(frozen=True)
class Snapshot:
    """A point from which a run can go on.

    Attributes:
        state: the state at this point.
        steps: the step of each frame so far.
        columns: the frames so far on the CPU, by the names of the columns in `recording.Trajectory`.
    """

    state: MDState
    steps: list[int]
    columns: Columns
