"""The fused engine: PaiNN's energy and forces in Triton kernels written by hand (`kernels.py`, docs/fused.md)."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from mlff_exp.config import Precision
from mlff_exp.engines.fused.kernels import ATOMS
from mlff_exp.engines.fused.launchers import PRODUCTS, Launcher, MoleculeLauncher, StagedLauncher
from mlff_exp.engines.fused.shapes import MoleculeShape, Shape, StagedShape, shape_for
from mlff_exp.engines.fused.weights import Weights
from mlff_exp.engines.prediction import EngineError, Prediction
from mlff_exp.models import PaiNN
from mlff_exp.structures import AtomicBatch


class FusedEngine:
    """Energy and forces in a few dozen kernels, without autograd; `CudaGraphEngine` captures it.

    Args:
        model: frozen, on the device.
        precision: precision of the products.
        device: device of the batches.
        shape: a shape for every batch, instead of the one that `shape_for` chooses.

    Raises:
        EngineError: the engine does not have this precision.
    """

    name = "fused"
    shorter_cutoffs = ()
    uses_cuda_graphs = False
    capturable = None

    def __init__(self, model: PaiNN, precision: Precision, device: torch.device, shape: Shape | None = None) -> None:
        if precision not in PRODUCTS:
            raise EngineError(f"engine 'fused' has no precision {precision!r}: use one of {', '.join(PRODUCTS)}")
        self.precision, self.device, self.cutoff = precision, device, model.architecture.cutoff
        self.compile_s, self.evaluations = 0.0, 0
        self._shape = shape
        self._weights = Weights.of(model, PRODUCTS[precision][0], device)
        self._launchers: dict[tuple[int, int], Launcher] = {}

    @property
    def compiled_graphs(self) -> int:
        """Number of shapes of batch so far, each with its own kernels."""
        return len(self._launchers)

    def has_graph(self, batch: AtomicBatch) -> bool:
        """Return whether a batch of this shape has run."""
        return (batch.n_systems, batch.n_slots) in self._launchers

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Compute energy and forces.

        Raises:
            EngineError: a system is periodic, or the batch has more atoms or molecules than the engine or its shape
                supports.
        """
        self.evaluations += batch.n_systems
        known = self._launchers.get((batch.n_systems, batch.n_slots))
        if known is not None:
            return known(batch)
        started = time.perf_counter()
        prediction = self._launcher(batch)(batch)
        self.compile_s += time.perf_counter() - started
        return prediction

    def can_integrate(self, batch: AtomicBatch) -> bool:
        """Return whether `integrate` accepts a batch: each program must compute molecules of its own."""
        return batch.shifts is None and isinstance(self.shape_of(batch), MoleculeShape)

    def integrate(
        self, batch: AtomicBatch, velocities: Tensor, last: Prediction, masses: Tensor, timestep: Tensor, n_steps: int
    ) -> None:
        """Integrate steps of velocity Verlet in one launch, in place.

        Args:
            batch: a batch that `can_integrate` accepts; its positions are changed.
            velocities: [n_rows, 3] FP64, changed.
            last: prediction at the positions; it is replaced by the one at the new positions.
            masses: [n_rows, 1] FP64.
            timestep: one number, FP64. Its unit follows from those of forces, masses and positions.
            n_steps: at least one.
        """
        launcher = self._launcher(batch)
        assert isinstance(launcher, MoleculeLauncher), "can_integrate is true"
        first, started = not launcher.has_moved, time.perf_counter()
        launcher.integrate(batch, velocities, last, masses, timestep, n_steps)
        if first:
            self.compile_s += time.perf_counter() - started
        self.evaluations += n_steps * batch.n_systems

    def shape_of(self, batch: AtomicBatch) -> Shape:
        """Return how a batch is distributed over the GPU."""
        return self._shape or shape_for(
            batch.n_systems, batch.n_slots, self._weights.features, self.precision, self.device
        )

    def _launcher(self, batch: AtomicBatch) -> Launcher:
        if batch.shifts is not None:
            raise EngineError("engine 'fused' takes no periodic systems: use engine 'cuda_graph'")
        key = batch.n_systems, batch.n_slots
        if key not in self._launchers:
            shape = self.shape_of(batch)
            slots = shape.slots if isinstance(shape, StagedShape) else ATOMS.value
            if slots < batch.n_slots:
                raise EngineError(f"engine 'fused': a shape of {slots} slots can't hold {batch.n_slots} atoms")
            if isinstance(shape, StagedShape):
                self._launchers[key] = StagedLauncher(self._weights, self.precision, shape, batch)
            else:
                self._launchers[key] = MoleculeLauncher(self._weights, self.precision, shape, batch)
        return self._launchers[key]
