"""An engine that traces energy, forces and stress as one graph and compiles it with Inductor."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.fx import GraphModule

from mlff_exp.config import CompileMode, Precision
from mlff_exp.engines.eager import energy_and_forces, energy_forces_and_stress, matmul_precision
from mlff_exp.engines.inductor import count_graphs, dynamo_counters, import_compiler
from mlff_exp.engines.memory import is_out_of_memory
from mlff_exp.engines.prediction import EngineError, Prediction
from mlff_exp.engines.protocol import ForceField
from mlff_exp.models import shorter_cutoffs
from mlff_exp.structures import AtomicBatch, ShapeKey

if TYPE_CHECKING:
    from mlff_exp.engines.graph_cache import GraphCache

Graph = Callable[..., tuple[Tensor, ...]]


class CompiledEngine:
    """Energy, forces and stress as one graph, compiled by Inductor for each shape of batch, without graph breaks.

    In mode ``default`` the graphs are kept on disk for the next start.

    Args:
        model: frozen, on the device.
        precision: precision of the network.
        device: device of the batches.
        mode: mode of `torch.compile`.
        stress: whether the graphs of batches that have a stress compute it; other graphs are the same without.
    """

    def __init__(
        self,
        model: ForceField,
        precision: Precision,
        device: torch.device,
        mode: CompileMode,
        *,
        stress: bool = False,
    ) -> None:
        import_compiler()  # before the first call, which is timed
        self.model, self.precision, self.device, self.mode = model, precision, device, mode
        self.cutoff, self.shorter_cutoffs, self.stress = model.cutoff, shorter_cutoffs(model), stress
        self.compile_s, self.evaluations = 0.0, 0
        self.capturable = None
        # Inductor's CUDA graphs return the same output buffers at every call.
        self.uses_cuda_graphs = device.type == "cuda" and mode != "default"
        self._graphs: dict[ShapeKey, Graph] = {}
        self._cache: GraphCache | None = None

    @property
    def name(self) -> str:
        """The engine and its mode."""
        return f"compile/{self.mode}"

    @property
    def compiled_graphs(self) -> int:
        """Number of compiled graphs: one for each shape of batch so far."""
        return len(self._graphs)

    def has_graph(self, batch: AtomicBatch) -> bool:
        """Return whether the shape is compiled."""
        return batch.shape_key in self._graphs

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Compute energy, forces and, if asked for, stress; the first call of a shape compiles."""
        try:
            return self._evaluate(batch)
        except torch._dynamo.exc.Unsupported as error:
            # Dynamo fails while it cleans up after an error, and reports its own failure instead of the error.
            if error.__context__ is not None and is_out_of_memory(error.__context__):
                raise error.__context__ from None
            raise

    def _evaluate(self, batch: AtomicBatch) -> Prediction:
        tensors = batch.tensors()
        with torch.no_grad(), matmul_precision(self.precision):
            graph = self._graphs.get(batch.shape_key)
            if graph is None:
                graph = self._compile(batch)
            found = graph(*tensors)
            if self.uses_cuda_graphs:
                found = tuple(tensor.clone() for tensor in found)
        self.evaluations += batch.n_systems
        return Prediction(*found)

    def _compile(self, batch: AtomicBatch) -> Graph:
        import torch._inductor.config as inductor

        started = time.perf_counter()
        # On a CPU, explicit SIMD code takes a third of the compile time and makes these gathers no faster.
        with inductor.patch({"cpp.simdlen": 1}), warnings.catch_warnings():
            # Inductor recommends TF32 wherever it is off, but the precision asks for IEEE products.
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
            # Without CUDA graphs both modes compile the same.
            plain = self.mode == "default" or (self.mode == "reduce-overhead" and not self.uses_cuda_graphs)
            graph = self._kept(batch) if plain else self._by_torch_compile(batch)
        self._graphs[batch.shape_key] = graph
        self.compile_s += time.perf_counter() - started
        return graph

    def _kept(self, batch: AtomicBatch) -> Graph:
        """Return the graph of an earlier start, or compile and keep one."""
        from mlff_exp.engines.graph_cache import GraphCache

        if self._cache is None:
            self._cache = GraphCache(self.model, [self.precision, f"stress={self.stress}", _device_name(self.device)])
        graph = self._cache.find(batch) or self._cache.compile(batch, self._trace(batch))
        graph(*batch.tensors())
        return graph

    def _by_torch_compile(self, batch: AtomicBatch) -> Graph:
        skips, before = dynamo_counters()["inductor"]["cudagraph_skips"], count_graphs()
        # Each shape has its own compiled callable: torch counts recompiles per callable and stops at eight.
        graph: Graph = torch.compile(self._trace(batch), fullgraph=True, dynamic=False, mode=self.mode)
        # CUDA graphs warm up on the first call and record on the second.
        for _ in range(3 if self.uses_cuda_graphs else 1):
            graph(*batch.tensors())
        if count_graphs() == before:
            raise EngineError(
                f"{self.name} was asked for, but torch.compile compiled nothing: are TORCHDYNAMO_DISABLE, "
                "TORCH_COMPILE_DISABLE or TORCHDYNAMO_SUPPRESS_ERRORS set?"
            )
        if self.uses_cuda_graphs and dynamo_counters()["inductor"]["cudagraph_skips"] > skips:
            raise EngineError(f"{self.name} was asked for, but Inductor left CUDA graphs out for {batch.shape_key}")
        return graph

    def _trace(self, batch: AtomicBatch) -> GraphModule:
        from mlff_exp.engines.edge_sums import replace_scatters
        from mlff_exp.engines.tracing import trace

        def from_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
            if self.stress and batch.fully_periodic:
                return energy_forces_and_stress(self.model, batch.with_tensors(*tensors), self.precision)
            return energy_and_forces(self.model, batch.with_tensors(*tensors), self.precision)

        module = trace(from_tensors, batch.tensors())
        replace_scatters(module, batch)
        return module


def _device_name(device: torch.device) -> str:
    """Return what compiled code of a device runs on."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} {torch.cuda.get_device_capability(device)} {torch.version.cuda}"
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"
