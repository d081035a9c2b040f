"""An engine with a batch whose positions change with every call, so that no result can come from a cache."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from mlff_exp.engines import Engine, Prediction
from mlff_exp.structures import AtomicBatch

N_GEOMETRIES = 8
DISPLACEMENT_ANG = 0.05


class Workload:
    """An engine with one shape of batch, whose positions change with every call.

    Attributes:
        calls: the number of calls so far.
        first_call_s: seconds of the first call, which the constructor makes; compiling and capturing included.
    """

    def __init__(self, engine: Engine, batch: AtomicBatch, seed: int) -> None:
        self.engine, self.batch, self.calls = engine, batch, 0
        generator = torch.Generator().manual_seed(seed)
        shape = (N_GEOMETRIES, *batch.positions.shape)
        moves = torch.randn(shape, generator=generator, dtype=torch.float64).to(batch.positions.device)
        self.geometries = [batch.with_positions(batch.positions + DISPLACEMENT_ANG * move) for move in moves]
        started = time.perf_counter()
        self.call()
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        self.first_call_s = time.perf_counter() - started

    def call(self) -> Prediction:
        """Evaluate the geometry whose turn it is."""
        self.calls += 1
        return self.engine(self.geometries[self.calls % N_GEOMETRIES])


@contextmanager
def all_evaluated(workloads: Sequence[Workload]) -> Iterator[None]:
    """Assert that every call in the block evaluates the model, and that no result comes from a cache.

    Args:
        workloads: the workloads that the block calls.

    Raises:
        RuntimeError: there are fewer evaluations than calls, or nonzero forces do not change with the positions.
    """
    engines = {id(workload.engine): workload.engine for workload in workloads}
    before = {key: engine.evaluations for key, engine in engines.items()}
    calls = [workload.calls for workload in workloads]
    yield
    for key, engine in engines.items():
        evaluated = engine.evaluations - before[key]
        asked = sum(
            workload.batch.n_systems * (workload.calls - earlier)
            for workload, earlier in zip(workloads, calls, strict=True)
            if workload.engine is engine
        )
        if evaluated < asked:
            raise RuntimeError(f"{engine.name} was asked for {asked} evaluations and did {evaluated}")
    for workload in workloads:
        forces = [workload.call().forces.cpu().numpy() for _ in range(N_GEOMETRIES)]
        if forces[0].any() and len({array.tobytes() for array in forces}) < N_GEOMETRIES:
            raise RuntimeError(
                f"{workload.engine.name} gave the same forces at other positions: they came from a cache"
            )
