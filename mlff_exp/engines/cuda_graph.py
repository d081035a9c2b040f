"""Capture the kernels of an engine in a CUDA graph."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import is_not
from typing import TypeVar

import torch
from torch import Tensor

from mlff_exp.engines.prediction import Prediction
from mlff_exp.engines.protocol import Engine
from mlff_exp.structures import AtomicBatch, ShapeKey

T = TypeVar("T")


class CudaGraphEngine:
    """An engine with a CUDA graph of its kernels for each shape; a call copies its inputs and replays the graph.

    The next replay overwrites the outputs, so that each call returns copies of them.

    Args:
        name: name of the engine.
        compiled: the engine to capture; it launches kernels and waits for nothing.
    """

    uses_cuda_graphs = True

    def __init__(self, name: str, compiled: Engine) -> None:
        self.name, self._compiled = name, compiled
        self.precision, self.device = compiled.precision, compiled.device
        self.cutoff, self.shorter_cutoffs = compiled.cutoff, compiled.shorter_cutoffs
        self._capture_s, self.evaluations = 0.0, 0
        self._captures: dict[ShapeKey, _Capture] = {}

    @property
    def capturable(self) -> Engine:
        """The captured engine."""
        return self._compiled

    @property
    def compiled_graphs(self) -> int:
        """Number of compiled graphs: one for each shape of batch so far."""
        return self._compiled.compiled_graphs

    @property
    def compile_s(self) -> float:
        """Time spent compiling and capturing, s."""
        return self._compiled.compile_s + self._capture_s

    def has_graph(self, batch: AtomicBatch) -> bool:
        """Return whether the shape is compiled and captured."""
        return batch.shape_key in self._captures

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Compute what the captured engine does; the first call of a shape compiles and captures."""
        capture = self._captures.get(batch.shape_key)
        if capture is None:
            capture = self._captures[batch.shape_key] = self._capture(batch)
        capture.copy_in(batch)
        capture.graph.replay()
        self.evaluations += batch.n_systems
        output = capture.output
        stress = None if output.stress is None else output.stress.clone()
        return Prediction(output.energy.clone(), output.forces.clone(), stress)

    def _capture(self, batch: AtomicBatch) -> _Capture:
        inputs = batch.with_tensors(*(tensor.clone() for tensor in batch.tensors()))
        self._compiled(inputs)
        started = time.perf_counter()

        def evaluate() -> Prediction:
            return self._compiled(inputs)

        graph, output = capture(evaluate, self.device, warm_up=[evaluate] * 3)
        self._capture_s += time.perf_counter() - started
        return _Capture(graph, inputs, output)


@dataclass
class _Capture:
    graph: torch.cuda.CUDAGraph
    inputs: AtomicBatch
    output: Prediction
    copied: tuple[Tensor, ...] = ()
    versions: list[int | None] = field(default_factory=list)

    def copy_in(self, batch: AtomicBatch) -> None:
        """Copy positions, and other tensors only where they changed: each copy costs as much as a kernel or two."""
        given = batch.tensors()
        # Tensors of inference mode do not count their changes.
        versions = [None if tensor.is_inference() else tensor._version for tensor in given[1:]]
        self.inputs.positions.copy_(given[0])
        if None in versions or versions != self.versions or any(map(is_not, given[1:], self.copied)):
            for static, tensor in zip(self.inputs.tensors()[1:], given[1:], strict=True):
                static.copy_(tensor)
            self.copied, self.versions = given[1:], versions


def capture(
    launch: Callable[[], T], device: torch.device, *, warm_up: Sequence[Callable[[], object]] = ()
) -> tuple[torch.cuda.CUDAGraph, T]:
    """Capture the kernels that a function launches in a CUDA graph.

    Args:
        launch: launches kernels and waits for nothing.
        device: a CUDA device.
        warm_up: called on a side stream before the capture, one after the other. Libraries initialise themselves at
            their first calls, which can't be captured.

    Returns:
        The graph, and what the function returned: tensors that each replay overwrites.
    """
    if warm_up:
        with side_stream(device):
            for call in warm_up:
                call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = launch()
    return graph, result


@contextlib.contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Run the block on another stream, for the first calls of libraries before a capture."""
    current, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        yield
    current.wait_stream(side)
