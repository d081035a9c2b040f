"""What an engine is, whatever makes it fast."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mlff_exp.engines.prediction import Prediction
from mlff_exp.models import ForceField as ForceField
from mlff_exp.structures import AtomicBatch


class Engine(Protocol):
    """A model made ready to run at one precision on one device."""

    @property
    def name(self) -> str:
        """The engine and its mode, as in the configuration."""

    @property
    def precision(self) -> str:
        """What arithmetic it runs: a `Precision`, or "native" for what is not ours."""

    @property
    def device(self) -> torch.device:
        """Where batches must be."""

    @property
    def cutoff(self) -> float:
        """Of the model, Å."""

    @property
    def uses_cuda_graphs(self) -> bool:
        """Whether a call replays a CUDA graph."""

    @property
    def capturable(self) -> Engine | None:
        """What to call instead while capturing a larger CUDA graph, or None if this engine is not to be captured."""

    @property
    def compiled_graphs(self) -> int:
        """Graphs compiled so far: one for each shape of batch."""

    @property
    def compile_s(self) -> float:
        """Seconds spent compiling so far."""

    @property
    def evaluations(self) -> int:
        """Systems that calls have evaluated so far; what came out of a cache does not count."""

    def has_graph(self, batch: AtomicBatch) -> bool:
        """Whether this shape of batch runs without compiling first."""

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Energy and forces; asynchronous on a GPU."""


@runtime_checkable
class DynamicsEngine(Protocol):
    """An engine that does whole steps of dynamics by itself, for some batches."""

    def can_integrate(self, batch: AtomicBatch) -> bool:
        """Whether it does those of such a batch."""

    def move(
        self, batch: AtomicBatch, velocities: Tensor, last: Prediction, masses: Tensor, timestep: Tensor, n_steps: int
    ) -> None:
        """Steps of velocity Verlet, in place; ``last`` is the prediction at the positions, before and after."""
