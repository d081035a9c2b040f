"""Time an engine alternately with its baselines, and compare its numbers with eager FP64."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch.nn import functional

from mlff_exp.config import NATIVE, Config, ConfigError, Precision
from mlff_exp.engines import (
    REFERENCE_ENGINE,
    AseEngine,
    Engine,
    Prediction,
    check_finite,
    count_graph_breaks,
    count_graphs,
    engine_spec,
    make_engine,
    stop_compile_workers,
)
from mlff_exp.measure import (
    Candidate,
    DisturbanceMonitor,
    accuracy_vs_fp64,
    describe_machine,
    judge_controls,
    mad_ms,
    make_controls,
    measure_side_by_side,
    median_interval_ms,
    median_ms,
    p95_ms,
    profile_kernels,
    require_correct,
    require_same_forces,
    time_ratio,
    wall_median_ms,
    write_kernels,
)
from mlff_exp.models import Capabilities, LoadedModel, package_calculator
from mlff_exp.report import plot_latency
from mlff_exp.results import FORCES_TAG, STRESS_LEFT_OUT, Estimate, RunResult, Timing
from mlff_exp.structures import AtomicBatch, collate
from mlff_exp.tasks.isolated import isolated_energies
from mlff_exp.tasks.own_forces import check_own_forces
from mlff_exp.tasks.registry import precisions
from mlff_exp.tasks.setup import ModelUnderTest, at_precision, described_systems, gives_stress, prepare_model
from mlff_exp.tasks.showing import Keep, keep_nothing, with_files

N_GEOMETRIES = 8
DISPLACEMENT_ANG = 0.05

# The baseline of each speedup: name of the metric and key of the timing.
SPEEDUPS = {
    "speedup_vs_baseline": "eager_fp32",
    "speedup_vs_fp32": "same_engine_fp32",
    "speedup_vs_single_eager": "eager_fp32_single",
    "speedup_vs_calculator": "ase_calculator",
}
SINGLE = ("eager_fp32_single", "ase_calculator")  # they evaluate one structure, whatever the batch size


def run(config: Config, directory: Path, keep: Keep = keep_nothing) -> RunResult:
    """Measure one engine at one precision and batch size. An ASE calculator is timed without baselines.

    Args:
        config: the configuration.
        directory: the directory of the run.
        keep: function that gets the result before tables and figures are written.

    Returns:
        The result, with the files that could be written.

    Raises:
        ConfigError: the model or the systems can't be used.
        RuntimeError: a result came from a cache.
    """
    before, pools_before = _allocated(torch.device(config.device)), _graph_pools_mib(config.device)
    subject = prepare_model(config)
    on_gpu, memory = subject.device.type == "cuda", {}
    (batch,) = batches(config, subject)
    engine = _Workload(subject.engine, batch, config.seed)
    if on_gpu:
        # The baselines do not exist yet, so that the peak belongs to this engine alone.
        pools = _graph_pools_mib(config.device) - pools_before
        memory["peak_memory_mib"] = _peak_mib(engine, before) + pools
    after_first_call = engine.engine.compiled_graphs

    workloads, reference, stress = {"engine": engine}, None, gives_stress(config, subject.capabilities)
    if subject.checkpoint is not None:
        # Baselines do the same work: they compute the stress if the engine does.
        reference = make_engine(subject.checkpoint.model, REFERENCE_ENGINE, "fp64", subject.device, stress=stress)
        precision = cast(Precision, config.precision.name)
        before = _allocated(subject.device)
        workloads["eager_fp32"] = _eager(subject.checkpoint, engine.batch, config)
        if on_gpu:
            memory["memory_vs_baseline"] = memory["peak_memory_mib"] / _peak_mib(workloads["eager_fp32"], before)
        *_, baseline = precisions(config)
        same = subject.engine
        if baseline != config.precision.name:
            same = at_precision(config, subject.checkpoint, baseline)
        workloads["same_engine_fp32"] = _Workload(same, engine.batch, config.seed)
        workloads["eager_fp32_single"] = _eager(subject.checkpoint, _batch(config, subject, 1), config)
        for name in config.task.baselines:
            also = stress and engine_spec(name).stress
            other = make_engine(subject.checkpoint.model, name, precision, subject.device, stress=also)
            workloads[name] = _Workload(other, engine.batch, config.seed)
        for workload in workloads.values():
            # A speedup over a wrong baseline would mean nothing.
            one = cast(Precision, workload.engine.precision)
            require_correct(workload.engine, reference, workload.geometries[0], one, config.seed)
        calculator = package_calculator(config.model, subject.device.type, stress)
        if calculator is not None:
            single = _Workload(AseEngine(calculator), _batch(config, subject, 1), config.seed)
            require_same_forces(single.engine, reference, single.geometries[0])
            workloads["ase_calculator"] = single

    task = config.task
    full = (task.min_calls, task.min_time_s, task.max_time_s)
    tenth = (-(-task.min_calls // 10), task.min_time_s / 10, task.max_time_s / 10)
    repeats = _repeats(config) if reference is not None else {}
    candidates = {
        name: Candidate(workload.call, *(full if name == "engine" else tenth))
        for name, workload in workloads.items()
        if name not in repeats
    }
    candidates |= make_controls(Candidate(engine.call, *tenth))
    stop_compile_workers()
    watch = DisturbanceMonitor(subject.device)
    compiled = count_graphs()
    with all_evaluated(list(workloads.values())):
        timing = measure_side_by_side(candidates, subject.device, between=watch.sample)
    again = count_graphs() - compiled
    timing |= {name: timing[measured] for name, measured in repeats.items()}
    timing |= {name: replace(timing[name], first_call_s=one.first_call_s) for name, one in workloads.items()}
    control = judge_controls(timing, "engine")

    metrics = {
        **memory,
        **_speed(timing["engine"], config.batch_size, batch.n_atoms),
        **_speedups(timing, config),
        **control.same.as_metrics("control_same"),
        **control.slower.as_metrics("control_slower"),
        "first_call_s": engine.first_call_s,
        "compile_s": engine.engine.compile_s,
        "graph_count": float(engine.engine.compiled_graphs),
        "graph_breaks": float(count_graph_breaks()),
        "recompiles": float(max(again, engine.engine.compiled_graphs - after_first_call)),
    }
    if reference is not None:
        metrics |= _accuracy(engine, reference)
    forces = {}
    if subject.has_own_forces:
        first = next(iter(described_systems(config, subject).values()))
        own, forces[FORCES_TAG] = check_own_forces(reference or subject.engine, first, config.seed)
        metrics |= own
    files: dict[str, Callable[[Path], object]] = {
        "samples.npz": partial(_write_samples, timing),
        "latency.png": partial(plot_latency, timing),
    }
    if on_gpu:
        metrics["latency_wall_median_ms"] = wall_median_ms(timing["engine"])
        found = profile_kernels(engine.call)
        metrics["kernel_launches"] = float(sum(kernel.launches for kernel in found))
        files["kernels.csv"] = partial(write_kernels, found)
    result = RunResult(
        config={},
        metrics=metrics,
        timing=timing,
        environment={**describe_machine(subject.device), **watch.summary()},
        tags={
            **subject.tags,
            **forces,
            "engine.cuda_graphs": str(engine.engine.uses_cuda_graphs).lower(),
            "timing.trust": "; ".join(watch.faults() + control.faults) or "ok",
            **_stress_tag(config, subject.capabilities, batch),
        },
    )
    keep(result)
    return with_files(result, directory, files)


def _write_samples(timing: Mapping[str, Timing], path: Path) -> None:
    samples = {name: np.asarray(value.values_ms) for name, value in timing.items()}
    np.savez_compressed(path, allow_pickle=False, **samples)


def _repeats(config: Config) -> dict[str, str]:
    """Return baselines that equal another candidate, by the name of that candidate, so that both are measured once."""
    eager, single = config.engine.name == REFERENCE_ENGINE, config.batch_size == 1
    wide = config.precision.name == precisions(config)[-1]
    same = {}
    if wide:
        same["same_engine_fp32"] = "control_same"
    elif eager:
        same["same_engine_fp32"] = "eager_fp32"
    if wide and eager:
        same["eager_fp32"] = "control_same"
    if single:
        same["eager_fp32_single"] = same.get("eager_fp32", "eager_fp32")
    return same


def batches(config: Config, subject: ModelUnderTest) -> Iterator[AtomicBatch]:
    """Yield the batch that is timed; all batches of the run have its shape.

    Args:
        config: the configuration.
        subject: the model under test.
    """
    yield _batch(config, subject, config.batch_size)


def _batch(config: Config, subject: ModelUnderTest, n_systems: int) -> AtomicBatch:
    structures = list(described_systems(config, subject).values())
    filled = [structures[index % len(structures)] for index in range(n_systems)]
    batch = collate(filled, subject.engine.cutoff, near=subject.engine.shorter_cutoffs, device=subject.device)
    if config.task.stress == "required" and not batch.fully_periodic:
        raise ConfigError(
            "task.stress=required: there is no stress, because a system is not periodic in all three directions; "
            "use task.stress=auto"
        )
    return batch


def _stress_tag(config: Config, can: Capabilities, batch: AtomicBatch) -> dict[str, str]:
    """Return the tag that says why the stress was not computed, where there is one."""
    if gives_stress(config, can) or not batch.fully_periodic:
        return {}
    if config.task.stress == "never":
        return {STRESS_LEFT_OUT: "task.stress=never"}
    by_model = config.engine.name == NATIVE or can.forces == "own"
    ran = f"model={config.model.name}" if by_model else f"engine={config.engine.name}"
    return {STRESS_LEFT_OUT: f"{ran} gives no stress"}


def _eager(loaded: LoadedModel, batch: AtomicBatch, config: Config) -> _Workload:
    device, stress = batch.positions.device, gives_stress(config, loaded.capabilities)
    eager = make_engine(loaded.model, REFERENCE_ENGINE, "fp32", device, stress=stress)
    return _Workload(eager, batch, config.seed)


def _allocated(device: torch.device) -> int:
    """Return the bytes in use on a GPU; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    # cuBLAS keeps a workspace from its first product on, and another for the thread that computes gradients. They
    # belong to no engine, so they are made before the first measurement.
    ones = torch.ones(16, 16, device=device, requires_grad=True)
    torch.autograd.grad(functional.linear(ones, ones, ones[0]).sum(), ones)
    del ones
    return torch.cuda.memory_allocated(device)


def _peak_mib(workload: _Workload, before: int) -> float:
    """Return the peak of a call that compiles nothing, in MiB above ``before`` bytes."""
    device = workload.engine.device
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    workload.call()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _graph_pools_mib(device: str) -> float:
    """Return the MiB in the pools of captured graphs, which the allocator's peak does not count."""
    if not device.startswith("cuda"):
        return 0.0
    segments = [segment for segment in torch.cuda.memory_snapshot() if tuple(segment["segment_pool_id"]) != (0, 0)]
    return float(sum(segment["total_size"] - segment["allocated_size"] for segment in segments)) / 2**20


class _Workload:
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
def all_evaluated(workloads: Sequence[_Workload]) -> Iterator[None]:
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


def _speed(engine: Timing, batch_size: int, n_atoms: int) -> dict[str, float]:
    median = median_ms(engine)
    return {
        **Estimate(median, *median_interval_ms(engine)).as_metrics("latency_median_ms"),
        "latency_p95_ms": p95_ms(engine),
        "latency_mad_ms": mad_ms(engine),
        "throughput_systems_per_s": 1000 * batch_size / median,
        "atoms_per_s": 1000 * n_atoms / median,
    }


def _speedups(timing: dict[str, Timing], config: Config) -> dict[str, float]:
    """Return the speedups over every baseline that was timed."""
    engine = timing["engine"]
    metrics: dict[str, float] = {}
    others = {f"speedup_vs_{name}": name for name in config.task.baselines if name in timing}
    for metric, baseline in (SPEEDUPS | others).items():
        if baseline not in timing:
            continue
        # Per structure: this engine evaluates a batch.
        structures = config.batch_size if baseline in SINGLE else 1
        metrics |= time_ratio(timing[baseline], engine).scaled(structures).as_metrics(metric)
    is_baseline = (config.engine.name, config.precision.name) == (REFERENCE_ENGINE, "fp32")
    if metrics.get("speedup_vs_baseline_ci_low", 0.0) > 1 and not is_baseline:
        # The time saved by a call follows from the speedup; the first call counts as a call.
        saved_s = median_ms(engine) / 1000 * (metrics["speedup_vs_baseline"] - 1)
        paid = max(0.0, engine.first_call_s - timing["eager_fp32"].first_call_s)
        metrics["break_even_calls"] = 1 + paid / saved_s
    return metrics


def _accuracy(workload: _Workload, reference: Engine) -> dict[str, float]:
    """Compare the engine with the reference on the geometries that were timed."""
    real = workload.batch.is_atom
    n_atoms = workload.batch.per_system(real).sum(dim=1)
    energies, forces, reference_energies, reference_forces = [], [], [], []
    stresses, reference_stresses = [], []
    for batch in workload.geometries:
        prediction, expected = workload.engine(batch), reference(batch)
        check_finite(prediction, batch, workload.engine.precision)
        energies.append(prediction.energy)
        forces.append(prediction.forces[real])
        reference_energies.append(expected.energy)
        reference_forces.append(expected.forces[real])
        if prediction.stress is not None and expected.stress is not None:
            stresses.append(prediction.stress)
            reference_stresses.append(expected.stress)
    energy, force, reference_energy, reference_force = (
        torch.cat(part).cpu().numpy() for part in (energies, forces, reference_energies, reference_forces)
    )
    counts = n_atoms.repeat(len(energies)).cpu().numpy()
    numbers = workload.batch.atomic_numbers.cpu().numpy()
    of_rows = np.where(numbers > 0, isolated_energies(reference, numbers[numbers > 0])[numbers], 0.0)
    isolated = np.tile(of_rows.reshape(workload.batch.n_systems, -1).sum(axis=1), len(energies))
    stress, reference_stress = (
        torch.cat(part).cpu().numpy() if part else None for part in (stresses, reference_stresses)
    )
    return accuracy_vs_fp64(
        energy, force, reference_energy, reference_force, counts, isolated, stress, reference_stress
    )
