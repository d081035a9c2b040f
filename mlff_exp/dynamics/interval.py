"""The steps between two frames, in one CUDA graph where the engine can be captured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mlff_exp.dynamics.recording import FrameTransfer, columns_of_frame
from mlff_exp.dynamics.state import MDState
from mlff_exp.engines import Engine, capture

if TYPE_CHECKING:
    from mlff_exp.dynamics.verlet import Dynamics


class FrameInterval:
    """The steps from one frame to the next, and the recording of that frame.

    Steps and recording are one CUDA graph where the engine can be captured. Frames go into a buffer on the device.
    `take` sends the frames to the CPU and empties the buffer.

    Args:
        dynamics: the systems that move.
        state: the state, which is changed in place.
        n_steps: the number of steps between two frames.
        capacity: the number of frames that the buffer holds.
    """

    def __init__(self, dynamics: Dynamics, state: MDState, n_steps: int, capacity: int) -> None:
        self._dynamics, self._state, self._n_steps, self.filled = dynamics, state, n_steps, 0
        self._device = dynamics.engine.device
        self._buffers = [part.new_zeros(capacity, *part.shape) for part in columns_of_frame(state)]
        self._row = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._graph, self._batch = self._captured(), dynamics.batch

    def __call__(self) -> None:
        """Do the steps and record a frame. If the neighbour list became stale, rebuild it and do them again."""
        before = self._state.copy() if self._dynamics.needs_list else None
        self._go()
        if before is not None and self._dynamics.list_is_stale():
            self._repeat(before)
        self._state.step += self._n_steps
        self.filled += 1

    def _repeat(self, before: MDState) -> None:
        """Do the same steps with a new neighbour list; if that becomes stale too, check it at each step."""
        self._state.become(before)
        self._row -= 1
        self._dynamics.rebuild_list(self._state.positions)
        self._go()
        if self._dynamics.list_is_stale():
            self._state.become(before)
            self._row -= 1
            for _ in range(self._n_steps):
                self._dynamics.step(self._state)
            self._state.step = before.step
            self._write(self._state)

    def _go(self) -> None:
        if self._batch is not self._dynamics.batch:
            self._graph, self._batch = self._captured(), self._dynamics.batch
        if self._graph is None:
            self._run(self._state, self._dynamics.engine)
        else:
            self._graph.replay()

    def take(self) -> FrameTransfer:
        """Empty the buffer, and return the transfer of its frames to the CPU."""
        frames = [buffer[: self.filled] for buffer in self._buffers]
        self.filled = 0
        self._row.zero_()
        return FrameTransfer(frames)

    def _run(self, state: MDState, engine: Engine) -> None:
        if self._dynamics.advance is not None:
            self._dynamics.advance(state, self._n_steps)
        else:
            self._dynamics._steps(state, self._n_steps, engine)
        self._write(state)

    def _write(self, state: MDState) -> None:
        for buffer, part in zip(self._buffers, columns_of_frame(state), strict=True):
            buffer.index_copy_(0, self._row, part.unsqueeze(0))
        self._row += 1

    def _captured(self) -> torch.cuda.CUDAGraph | None:
        inner = self._dynamics.engine.capturable
        if inner is None or self._dynamics.advance is not None:
            return None
        dynamics = self._dynamics
        row, farthest = self._row.clone(), dynamics._farthest_squared.clone()

        def warm_up() -> None:
            self._run(self._state.copy(), inner)  # on a copy that is dropped
            self._row.copy_(row)
            dynamics._farthest_squared.copy_(farthest)

        graph, _ = capture(lambda: self._run(self._state, inner), self._device, warm_up=[warm_up] * 2)
        return graph
