"""Engines and lists of engines that several tests use."""

from __future__ import annotations

from collections.abc import Callable

from mlff_exp.config.words import COMPILE_MODES
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.engines.prediction import Prediction
from mlff_exp.structures.batch import AtomicBatch

# Mode by mode the fastest varying, so that a parallel run does not queue the slow autotuning behind itself.
GPU_ENGINES = [
    *(("compile", mode) for mode in reversed(COMPILE_MODES)),
    ("cuda_graph", "default"),
    ("eager", "default"),
]
AUTOTUNED = [("compile", "max-autotune")]


class Faulty(EagerEngine):
    """Does something to what is predicted."""

    fault: Callable[[Prediction], Prediction] = staticmethod(lambda prediction: prediction)

    def __call__(self, batch: AtomicBatch) -> Prediction:
        return self.fault(super().__call__(batch))
