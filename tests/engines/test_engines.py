"""Every engine and precision against eager FP64 of the same weights."""

from __future__ import annotations

import copy
import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from torch._dynamo.exc import Unsupported
from torch._inductor.async_compile import AsyncCompile
from torch.fx.experimental.proxy_tensor import make_fx

from mlff_exp.config.words import PRECISIONS, Precision
from mlff_exp.engines import edge_sums, graph_cache, tracing
from mlff_exp.engines.cuda_graph import _Capture
from mlff_exp.engines.eager import energy_and_forces, matmul_precision
from mlff_exp.engines.factory import check_finite, make_engine
from mlff_exp.engines.inductor import count_graph_breaks, stop_compile_workers
from mlff_exp.engines.prediction import EngineError, Prediction
from mlff_exp.engines.protocol import Engine
from mlff_exp.engines.registry import engine_options
from mlff_exp.measure.correctness import require_correct
from mlff_exp.models.painn import PaiNN
from mlff_exp.structures.batch import AtomicBatch, collate
from tests.conftest import cluster, make_random_model, rattled
from tests.helpers.engines import AUTOTUNED, GPU_ENGINES
from tests.helpers.shapes import assert_batch, assert_prediction

CPU_PRECISIONS: tuple[Precision, ...] = ("fp64", "fp32", "bf16_autocast", "fp16_autocast")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CUTOFF = 5.0
pytestmark = pytest.mark.usefixtures("few_autotuning_choices")


# The operations that autocast lowers: products with weights, the activation between them and its derivative.
# Everything else, from distances over filters and messages to energies, is computed in FP32 or FP64.
LOWERED = {"mm", "addmm", "silu", "silu_backward"}
# Operations that move numbers of any type and compute nothing.
MOVING = {
    "_to_copy", "_unsafe_view", "cat", "clone", "detach", "expand", "getitem", "index", "slice", "split", "squeeze",
    "t", "unsqueeze", "view", "zeros",
}  # fmt: skip


@pytest.mark.parametrize("precision", ["fp16_autocast", "bf16_autocast"])
def test_operations_that_autocast_lowers(student: PaiNN, precision: Precision) -> None:
    frozen = copy.deepcopy(student).requires_grad_(False)
    batch = collate([rattled("C6H6", 1)], CUTOFF)
    graph = make_fx(lambda *tensors: energy_and_forces(frozen, AtomicBatch(*tensors), precision))(
        *batch.tensors()
    ).graph
    computed: dict[torch.dtype, set[str]] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, torch.Tensor):
            name = node.target.__name__.split(".")[0]
            if name not in MOVING:
                computed.setdefault(value.dtype, set()).add(name)
    low = {"fp16_autocast": torch.float16, "bf16_autocast": torch.bfloat16}[precision]
    assert computed[low] == LOWERED
    assert not computed[torch.float32] & LOWERED, "a product that autocast should lower"
    assert {"sqrt", "exp", "sin", "sum", "mul", "div"} <= computed[torch.float32]
    # Differences of positions, sums of atomic energies and of forces.
    assert {"sub", "add", "sum", "neg"} <= computed[torch.float64]


def benzenes(n_systems: int) -> list[Atoms]:
    return [rattled("C6H6", seed) for seed in range(n_systems)]


def assert_agrees(engine: Engine, model: PaiNN, systems: list[Atoms], precision: Precision) -> None:
    batch = collate(systems, CUTOFF, device=engine.device)
    for _ in range(2):  # compile and capture; what is compared is a replay
        prediction = engine(batch)
    assert_batch(batch)
    assert_prediction(prediction, batch)
    require_correct(engine, make_engine(model, "eager", "fp64", engine.device, stress=True), batch, precision)


@pytest.mark.parametrize("precision", CPU_PRECISIONS)
@pytest.mark.parametrize("n_systems", [1, 3])
def test_eager_on_the_cpu(student: PaiNN, precision: Precision, n_systems: int) -> None:
    assert_agrees(make_engine(student, "eager", precision, CPU), student, benzenes(n_systems), precision)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "mode", "names"),
    [
        ("fp32", "default", [("C6H6", "C6H6", "H2O"), ("C6H6", "C6H6", "CH4")]),
        # Three systems of three atoms: no size of it is a power of two.
        ("bf16_autocast", "reduce-overhead", [("H2O", "H2O", "H2O"), ("CO2", "H2O", "CO2")]),
    ],
)
def test_compiled_on_the_cpu_is_one_graph_per_shape(precision: Precision, mode: str, names: list[tuple[str]]) -> None:
    model = make_random_model(16, 1)  # half as many kernels to compile as the smallest student has
    engine = make_engine(model, "compile", precision, CPU, engine_options("compile", mode=mode))
    breaks = count_graph_breaks()
    for molecules in names:
        assert_agrees(engine, model, [rattled(name, seed) for seed, name in enumerate(molecules)], precision)
    assert engine.compiled_graphs == 1
    assert count_graph_breaks() == breaks
    assert engine.compile_s > 0
    assert not engine.uses_cuda_graphs


@pytest.mark.slow
def test_compiled_periodic_system_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_random_model(16, 1)
    box = Atoms("OHHO", positions=np.diag([1.0, 2.2, 3.1, 0.0])[:4, :3] + [[0, 0, 0], [0, 0, 0], [0, 0, 0], [2, 2, 2]])
    box.cell, box.pbc = [4.1, 4.3, 4.7], True
    engine = make_engine(model, "compile", "fp64", CPU, stress=True)
    assert_agrees(engine, model, [box], "fp64")
    batch = collate([box], CUTOFF)
    first = engine(batch)
    assert first.stress is not None

    # The next start takes the graph from the disk.
    monkeypatch.setattr(tracing, "trace", pytest.fail)
    again = make_engine(make_random_model(16, 1), "compile", "fp64", CPU, stress=True)(batch)
    assert again.stress is not None
    for found, expected in zip(
        (again.energy, again.forces, again.stress), (first.energy, first.forces, first.stress), strict=True
    ):
        assert torch.equal(found, expected)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_processes_that_compile_end_and_start_again(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    monkeypatch.setattr(torch._inductor.config, "compile_threads", 2)
    for _ in range(2):
        before = set(mine.read_text().split())
        compiles_in = AsyncCompile.process_pool().submit(os.getppid).result()
        assert str(compiles_in) in set(mine.read_text().split()) - before
        stop_compile_workers()
        assert set(mine.read_text().split()) == before


# Inductor has returned wrong sums for sizes that are no powers of two (pytorch/pytorch#178871).
@pytest.mark.gpu
@pytest.mark.parametrize("n_atoms", [1, 3, 5, 12, 13, 16, 31])
@pytest.mark.parametrize("n_systems", [1, 2, 3, 16])
def test_every_shape_is_right_on_the_gpu(student: PaiNN, n_atoms: int, n_systems: int) -> None:
    engine = make_engine(student, "cuda_graph", "fp32", CUDA)
    assert_agrees(engine, student, [cluster(n_atoms, seed) for seed in range(n_systems)], "fp32")


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "mode", "precision", "n_systems"),
    [
        (*engine, precision, n_systems)
        for engine, precision, n_systems in itertools.product(GPU_ENGINES, PRECISIONS, (1, 16))
        # Autotuning takes two minutes for each of its graphs.
        if engine not in AUTOTUNED or (n_systems == 16 and precision in ("fp32", "fp16_autocast"))
    ],
)
def test_every_engine_agrees_on_the_gpu(
    student: PaiNN, name: str, mode: str, precision: Precision, n_systems: int
) -> None:
    engine = make_engine(student, name, precision, CUDA, engine_options(name, mode=mode))
    breaks = count_graph_breaks()
    assert_agrees(engine, student, benzenes(n_systems), precision)
    assert count_graph_breaks() == breaks
    assert engine.uses_cuda_graphs == (name == "cuda_graph" or (name == "compile" and mode != "default"))

    batch, moved = (
        collate([rattled("C6H6", seed + i) for i in range(n_systems)], CUTOFF, device=CUDA) for seed in (0, 7)
    )
    first = engine(batch)
    forces = first.forces.clone()
    assert not torch.equal(engine(moved).forces, forces)
    again = engine(batch)
    assert torch.equal(first.forces, forces), "a later call overwrote an earlier prediction"
    assert torch.equal(again.forces, forces), "the same input gave other bits"
    assert torch.equal(again.energy, first.energy)


def test_a_capture_gets_tensors_that_changed_since_the_last_call() -> None:
    """The tensors that are copied into the inputs of a CUDA graph; the test needs no graph."""
    first, other = (collate([rattled(name, 1)], CUTOFF) for name in ("C6H6", "C6H6"))
    other = other.with_positions(other.positions + 0.1)
    other.atomic_numbers[3] = 7
    capture = _Capture(None, AtomicBatch(*(tensor.clone() for tensor in first.tensors())), None)  # type: ignore[arg-type]

    def holds(batch: AtomicBatch) -> bool:
        capture.copy_in(batch)
        return all(torch.equal(a, b) for a, b in zip(capture.inputs.tensors(), batch.tensors(), strict=True))

    assert holds(first)
    turned = first.atomic_numbers.flip(0).clone()
    with torch.no_grad():
        for _ in range(first.atomic_numbers._version):
            turned.add_(0)  # as many changes as the other has seen
    assert turned._version == first.atomic_numbers._version
    assert holds(replace(first, atomic_numbers=turned))
    assert holds(other)
    other.positions.add_(0.1)
    other.atomic_numbers[4] = 8
    assert holds(other)
    with torch.inference_mode():  # whose tensors do not count their changes
        third = AtomicBatch(*(tensor.clone() for tensor in first.tensors()))
        assert holds(third)
        third.atomic_numbers[5] = 9
        assert holds(third)
    assert holds(first)


@pytest.mark.gpu
def test_a_replay_allocates_nothing_that_stays(student: PaiNN) -> None:
    engine = make_engine(student, "cuda_graph", "fp32", CUDA)
    batches = [collate(benzenes(4), CUTOFF, device=CUDA), collate([rattled("C6H6", 9)] * 4, CUTOFF, device=CUDA)]
    for batch in batches:
        engine(batch)

    def held() -> tuple[int, int]:
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    before = held()
    for number in range(100):
        engine(batches[number % 2])
        assert held() == before, f"after {number + 1} calls"


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "mode"), [engine for engine in GPU_ENGINES if engine not in AUTOTUNED])
def test_mixed_molecules_and_new_positions_on_the_gpu(student: PaiNN, name: str, mode: str) -> None:
    engine = make_engine(student, name, "fp32", CUDA, engine_options(name, mode=mode))
    assert_agrees(engine, student, [rattled("C6H6", 1), rattled("H2O", 2), rattled("NH3", 5)], "fp32")
    graphs = engine.compiled_graphs
    assert_agrees(engine, student, [rattled("C6H6", 3), rattled("CH4", 4), rattled("CO2", 6)], "fp32")
    assert engine.compiled_graphs == graphs


@pytest.mark.parametrize(("engine", "precision"), [("eager", "tf32"), ("cuda_graph", "fp32"), ("fused", "fp32")])
def test_engines_and_precisions_that_need_cuda_are_refused_on_a_cpu(
    student: PaiNN, engine: str, precision: str
) -> None:
    with pytest.raises(EngineError, match="needs a CUDA GPU; the device is 'cpu'"):
        make_engine(student, engine, precision, CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("warp", "fp32", CPU), r"engine='warp' is not one of: eager, compile, cuda_graph, fused"),
        (("eager", "fp8", CPU), r"precision='fp8' is not one of: fp64, fp32, tf32, fp16_autocast, bf16_autocast"),
    ],
)
def test_unknown_words_are_refused(student: PaiNN, arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_engine(student, *arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"engine.mode='fast' is not one of: default, reduce-overhead, max-autotune"):
        engine_options("compile", mode="fast")


def test_non_finite_predictions_are_refused_by_system(student: PaiNN) -> None:
    batch = collate(benzenes(3), CUTOFF)
    forces = torch.zeros(36, 3, dtype=torch.float64)
    forces[13, 1] = torch.inf
    with pytest.raises(FloatingPointError, match=r"fp16_autocast gave NaN or infinite .* systems \[1\] of 3"):
        check_finite(Prediction(torch.zeros(3, dtype=torch.float64), forces), batch, "fp16_autocast")


@pytest.mark.parametrize("good_calls", [0, 1, 2])
def test_missing_memory_is_said_whatever_dynamo_makes_of_it(
    random_model: PaiNN, benzene: Atoms, monkeypatch: pytest.MonkeyPatch, good_calls: int
) -> None:
    """While compiling, in the call that it was for, and in the next."""
    calls: list[int] = []

    def compiled(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        if len(calls) <= good_calls:
            return torch.zeros(1), torch.zeros(12, 3)
        try:
            torch.empty(2**59)
        except RuntimeError:
            raise Unsupported("Attempt to trace generator")  # noqa: B904 (as Dynamo does)
        raise AssertionError("so much memory there is not")

    monkeypatch.setattr(tracing, "trace", lambda *arguments: None)
    monkeypatch.setattr(edge_sums, "replace_scatters", lambda *arguments: 0)
    monkeypatch.setattr(graph_cache, "cache_directory", lambda: None)
    monkeypatch.setattr(graph_cache.GraphCache, "compile", lambda *arguments: compiled)
    engine = make_engine(random_model, "compile", "fp32", torch.device("cpu"))
    batch = collate([benzene], engine.cutoff)
    for _ in range(good_calls // 2):
        engine(batch)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        engine(batch)
    assert len(calls) == good_calls + 1


def test_an_engine_leaves_no_trace(student: PaiNN) -> None:
    before = torch.get_float32_matmul_precision()
    with matmul_precision("tf32"):
        assert torch.backends.cuda.matmul.allow_tf32
    with matmul_precision("fp32"):
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == before
    make_engine(student, "eager", "fp64", CPU)
    assert student.dtype == torch.float32
