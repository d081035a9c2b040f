"""The interface of engines."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mlff_exp.engines.prediction import Prediction
from mlff_exp.models import ForceField as ForceField
from mlff_exp.structures import AtomicBatch


class Engine(Protocol):
    """A model that is ready to run at one precision on one device."""

    @property
    def name(self) -> str:
        """The engine and its mode, as in the configuration."""

    @property
    def precision(self) -> str:
        """The arithmetic: a `Precision`, or "native" for a calculator with its own."""

    @property
    def device(self) -> torch.device:
        """Device of the batches."""

    @property
    def cutoff(self) -> float:
        """Cutoff of the model, Å; the longest if it has several."""

    @property
    def shorter_cutoffs(self) -> tuple[float, ...]:
        """The other cutoffs of the model, Å, for which `collate` makes shorter lists."""

    @property
    def uses_cuda_graphs(self) -> bool:
        """Whether a call replays a CUDA graph."""

    @property
    def capturable(self) -> Engine | None:
        """The engine to call while a larger CUDA graph is captured; None if this engine can't be captured."""

    @property
    def compiled_graphs(self) -> int:
        """Graphs compiled so far: one for each shape of batch."""

    @property
    def compile_s(self) -> float:
        """Seconds spent compiling so far."""

    @property
    def evaluations(self) -> int:
        """Number of systems that calls have evaluated so far; results from a cache do not count."""

    def has_graph(self, batch: AtomicBatch) -> bool:
        """Return whether a batch of this shape runs without compiling first."""

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Compute energy and forces; asynchronous on a GPU."""


@runtime_checkable
class DynamicsEngine(Protocol):
    """An engine that also integrates steps of dynamics, for some batches."""

    def can_integrate(self, batch: AtomicBatch) -> bool:
        """Return whether the engine integrates batches of this shape."""

    def integrate(
        self, batch: AtomicBatch, velocities: Tensor, last: Prediction, masses: Tensor, timestep: Tensor, n_steps: int
    ) -> None:
        """Integrate steps of velocity Verlet, in place.

        Args:
            batch: its positions are changed.
            velocities: [n_rows, 3], ASE units, changed.
            last: the prediction at the positions; it is replaced by the one at the new positions.
            masses: [n_rows, 1] u.
            timestep: one number, ASE units.
            n_steps: number of steps.
        """
