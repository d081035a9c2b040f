"""Engines turn a model into ``batch → Prediction``; energy and forces are always one graph.

The engine that was asked for is the one that runs, or the call fails.
"""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from operator import is_not
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mlff_exp.batch import AtomicBatch
from mlff_exp.config import COMPILE_MODES, ENGINES, PRECISIONS, CompileMode, EngineName, Precision, choose
from mlff_exp.legacy import LegacyPaiNN
from mlff_exp.painn import PaiNN
from mlff_exp.prediction import EngineError, Prediction

ForceField = PaiNN | LegacyPaiNN
AUTOCAST_DTYPES: dict[Precision, torch.dtype] = {"fp16_autocast": torch.float16, "bf16_autocast": torch.bfloat16}

# What torch on the CPU, the driver below torch or Triton, and cuBLAS say, as errors of other kinds.
NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


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
class Mover(Protocol):
    """An engine that does whole steps of dynamics by itself, for some batches."""

    def can_move(self, batch: AtomicBatch) -> bool:
        """Whether it does those of such a batch."""

    def move(
        self, batch: AtomicBatch, velocities: Tensor, last: Prediction, masses: Tensor, timestep: Tensor, n_steps: int
    ) -> None:
        """Steps of velocity Verlet, in place; ``last`` is the prediction at the positions, before and after."""


def make_engine(
    model: ForceField,
    engine: EngineName,
    precision: Precision,
    device: torch.device,
    mode: CompileMode = "default",
) -> Engine:
    """An engine over its own frozen copy of the model.

    Raises:
        EngineError: an engine or precision that the device does not have.
        ValueError: an engine, mode or precision that does not exist.
    """
    choose("precision", precision, PRECISIONS)
    choose("engine", engine, ENGINES)
    choose("engine.mode", mode, COMPILE_MODES)
    if device.type != "cuda":
        for word, value in (("precision", precision), ("engine", engine)):
            if value in ("tf32", "cuda_graph", "fused"):
                raise EngineError(f"{word} {value!r} needs a CUDA GPU; the device is {device.type!r}")
    dtype = torch.float64 if precision == "fp64" else torch.float32
    frozen = deepcopy(model).cast(dtype).to(device).eval().requires_grad_(False)
    if engine == "eager":
        return EagerEngine(frozen, precision, device)
    if engine == "cuda_graph":
        return CudaGraphEngine(engine, CompiledEngine(frozen, precision, device, "default"))
    if engine == "fused":
        return CudaGraphEngine(engine, _fused(frozen, precision, device))
    return CompiledEngine(frozen, precision, device, mode)


def _fused(model: ForceField, precision: Precision, device: torch.device) -> Engine:
    if not isinstance(model, PaiNN):
        raise EngineError("engine 'fused' knows the architecture of this project alone: use engine 'cuda_graph'")
    try:
        from mlff_exp.fused import FusedEngine
    except ImportError as error:
        raise EngineError(f"engine 'fused' needs Triton, which is not installed: {error}") from error
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        raise EngineError(f"engine 'fused' needs a GPU of compute capability 8.0; this one has {capability}")
    return FusedEngine(model, precision, device)


def energy_and_forces(model: ForceField, batch: AtomicBatch, precision: Precision) -> tuple[Tensor, Tensor]:
    """E [n_systems] eV and F = −∂E/∂x [n_atoms, 3] eV/Å, both FP64."""
    positions = batch.positions.detach().requires_grad_(True)
    with torch.enable_grad(), _autocast(precision, positions.device):
        energy = model(batch.with_positions(positions))
        (gradient,) = torch.autograd.grad(energy.sum(), positions)
    return energy.detach(), -gradient


class EagerEngine:
    """Plain PyTorch, kernel by kernel: the reference every other engine is compared with."""

    name = "eager"
    uses_cuda_graphs = False
    capturable = None
    compiled_graphs = 0
    compile_s = 0.0

    def __init__(self, model: ForceField, precision: Precision, device: torch.device) -> None:
        self.model, self.precision, self.device = model, precision, device
        self.cutoff, self.evaluations = model.architecture.cutoff, 0

    def has_graph(self, batch: AtomicBatch) -> bool:
        """Nothing is ever compiled."""
        return True

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Energy and forces."""
        self.evaluations += batch.n_systems
        with matmul_arithmetic(self.precision):
            return Prediction(*energy_and_forces(self.model, batch, self.precision))


class CompiledEngine:
    """Energy and forces traced together and compiled by Inductor: one graph per shape, no breaks."""

    def __init__(self, model: ForceField, precision: Precision, device: torch.device, mode: CompileMode) -> None:
        # Here and not at the first call, whose time is a metric; an eager engine need not wait seconds for a compiler.
        import torch._inductor.compile_fx  # noqa: F401

        self.model, self.precision, self.device, self.mode = model, precision, device, mode
        self.cutoff = model.architecture.cutoff
        self.compile_s, self.evaluations = 0.0, 0
        self.capturable = None
        # Inductor's CUDA graphs hand out the same output buffers at every call.
        self.uses_cuda_graphs = device.type == "cuda" and mode != "default"
        self._graphs: dict[tuple[int, int, int, bool], Callable[..., tuple[Tensor, Tensor]]] = {}

    @property
    def name(self) -> str:
        """The engine and its mode."""
        return f"compile/{self.mode}"

    @property
    def compiled_graphs(self) -> int:
        """One for each shape of batch so far."""
        return len(self._graphs)

    def has_graph(self, batch: AtomicBatch) -> bool:
        """Whether the shape is compiled."""
        return batch.shape_key in self._graphs

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Energy and forces; the first call of a shape compiles."""
        try:
            return self._evaluate(batch)
        except torch._dynamo.exc.Unsupported as error:
            # Dynamo stumbles over the cleaning up after an error and reports that instead.
            if error.__context__ is not None and is_out_of_memory(error.__context__):
                raise error.__context__ from None
            raise

    def _evaluate(self, batch: AtomicBatch) -> Prediction:
        tensors = batch.tensors()
        with torch.no_grad(), matmul_arithmetic(self.precision):
            graph = self._graphs.get(batch.shape_key)
            if graph is None:
                graph = self._compile(batch)
            energy, forces = graph(*tensors)
            if self.uses_cuda_graphs:
                energy, forces = energy.clone(), forces.clone()
        self.evaluations += batch.n_systems
        return Prediction(energy, forces)

    def _compile(self, batch: AtomicBatch) -> Callable[..., tuple[Tensor, Tensor]]:
        import torch._inductor.config as inductor

        from mlff_exp.tracing import traced

        started = time.perf_counter()
        skips, before = _counters()["inductor"]["cudagraph_skips"], graphs_compiled()

        def from_tensors(*tensors: Tensor) -> tuple[Tensor, Tensor]:
            return energy_and_forces(self.model, AtomicBatch(*tensors), self.precision)

        module = traced(from_tensors, batch.tensors())
        # Where there are no CUDA graphs, one entry of Inductor's cache serves both modes.
        mode = "default" if self.mode == "reduce-overhead" and not self.uses_cuda_graphs else self.mode
        # A compiled callable of its own for each shape: torch counts recompiles per callable and stops at eight.
        graph: Callable[..., tuple[Tensor, Tensor]] = torch.compile(module, fullgraph=True, dynamic=False, mode=mode)
        # On a CPU explicit SIMD code takes a third of the compile time and gains nothing measurable for these gathers.
        with inductor.patch({"cpp.simdlen": 1}), warnings.catch_warnings():
            # Inductor advises TF32 wherever it is off; IEEE products are what was asked for.
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
            # CUDA graphs warm up on the first call and record on the second.
            for _ in range(3 if self.uses_cuda_graphs else 1):
                graph(*batch.tensors())
        if graphs_compiled() == before:
            raise EngineError(
                f"{self.name} was asked for, but torch.compile compiled nothing: are TORCHDYNAMO_DISABLE, "
                "TORCH_COMPILE_DISABLE or TORCHDYNAMO_SUPPRESS_ERRORS set?"
            )
        if self.uses_cuda_graphs and _counters()["inductor"]["cudagraph_skips"] > skips:
            raise EngineError(f"{self.name} was asked for, but Inductor left CUDA graphs out for {batch.shape_key}")
        self._graphs[batch.shape_key] = graph
        self.compile_s += time.perf_counter() - started
        return graph


class CudaGraphEngine:
    """What only launches kernels, captured in a CUDA graph of our own: a call copies its inputs in and replays.

    What it returns is overwritten by the next call of the same shape, so it is cloned.
    """

    uses_cuda_graphs = True

    def __init__(self, name: str, compiled: Engine) -> None:
        self.name, self._compiled = name, compiled
        self.precision, self.device, self.cutoff = compiled.precision, compiled.device, compiled.cutoff
        self._capture_s, self.evaluations = 0.0, 0
        self._captures: dict[tuple[int, int, int, bool], _Capture] = {}

    @property
    def capturable(self) -> Engine:
        """What is captured: it launches kernels and waits for nothing."""
        return self._compiled

    @property
    def compiled_graphs(self) -> int:
        """One for each shape of batch so far."""
        return self._compiled.compiled_graphs

    @property
    def compile_s(self) -> float:
        """Compiling and capturing."""
        return self._compiled.compile_s + self._capture_s

    def has_graph(self, batch: AtomicBatch) -> bool:
        """Whether the shape is compiled and captured."""
        return batch.shape_key in self._captures

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Energy and forces; the first call of a shape compiles and captures."""
        capture = self._captures.get(batch.shape_key)
        if capture is None:
            capture = self._captures[batch.shape_key] = self._capture(batch)
        capture.copy_in(batch)
        capture.graph.replay()
        self.evaluations += batch.n_systems
        return Prediction(capture.output.energy.clone(), capture.output.forces.clone())

    def _capture(self, batch: AtomicBatch) -> _Capture:
        inputs = AtomicBatch(*(tensor.clone() for tensor in batch.tensors()))
        self._compiled(inputs)
        started = time.perf_counter()
        with side_stream(self.device):
            for _ in range(3):
                self._compiled(inputs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self._compiled(inputs)
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
        """Positions, and the rest where it is not as at the last call: each copy costs as much as a kernel or two."""
        given = batch.tensors()
        # Tensors made in inference mode don't count their changes.
        versions = [None if tensor.is_inference() else tensor._version for tensor in given[1:]]
        self.inputs.positions.copy_(given[0])
        if None in versions or versions != self.versions or any(map(is_not, given[1:], self.copied)):
            for static, tensor in zip(self.inputs.tensors()[1:], given[1:], strict=True):
                static.copy_(tensor)
            self.copied, self.versions = given[1:], versions


def end_compilers() -> None:
    """End the processes that Inductor compiles in; it starts others when it needs them.

    Each takes seconds of a core to start, which should not happen beside what is timed.
    """
    if "torch._inductor.async_compile" in sys.modules:
        torch._inductor.async_compile.shutdown_compile_workers()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what led to it, says that there is no memory left, on a GPU or for a CPU's tensors."""
    chain, seen = [error], set()
    while chain:
        current = chain.pop()
        if isinstance(current, torch.OutOfMemoryError | MemoryError) or any(text in str(current) for text in NO_MEMORY):
            return True
        seen.add(id(current))
        # Dynamo raises its own errors `from None`: the context is kept, though tracebacks leave it out.
        before = (current.__cause__, current.__context__)
        chain += [earlier for earlier in before if earlier is not None and id(earlier) not in seen]
    return False


def graph_breaks() -> int:
    """Graph breaks in this process so far."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled
        return 0
    return sum(_counters()["graph_break"].values())


def graphs_compiled() -> int:
    """Graphs that Dynamo has compiled in this process so far; one that it compiles again counts again."""
    if "torch._dynamo" not in sys.modules:
        return 0
    return _counters()["stats"]["unique_graphs"]


def check_finite(prediction: Prediction, batch: AtomicBatch, precision: str) -> None:
    """Refuse NaN and infinity; waits for the GPU.

    Raises:
        FloatingPointError: naming the precision, the systems and their atoms.
    """
    energy_ok = prediction.energy.isfinite()
    forces_ok = batch.per_system(prediction.forces.isfinite()).flatten(1).all(dim=1)
    bad = (~(energy_ok & forces_ok)).nonzero().flatten().tolist()
    if bad:
        numbers = batch.per_system(batch.atomic_numbers)[bad[0]]
        raise FloatingPointError(
            f"{precision} gave NaN or infinite energies or forces for systems {bad[:10]} of {batch.n_systems} "
            f"(the first has atomic numbers {numbers[numbers > 0].tolist()}): use a wider precision"
        )


def _counters() -> Mapping[str, Mapping[str, int]]:
    from torch._dynamo.utils import counters

    return counters


@contextlib.contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """A stream for the calls before a capture, at which libraries initialise themselves."""
    current, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        yield
    current.wait_stream(side)


@contextlib.contextmanager
def matmul_arithmetic(precision: Precision) -> Iterator[None]:
    """TF32 for FP32 products on CUDA if the precision says so, IEEE otherwise; restored afterwards."""
    # Not through torch.backends.cuda.matmul: Inductor reads the older of its two interfaces, which must agree.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def _autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    dtype = AUTOCAST_DTYPES.get(precision)
    if dtype is None:
        yield
    else:
        with torch.autocast(device.type, dtype=dtype, cache_enabled=False):
            yield
