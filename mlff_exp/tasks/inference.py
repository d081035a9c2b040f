"""Time an engine with its baselines beside it, and compare its numbers with eager FP64."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from mlff_exp.batch import AtomicBatch, collate
from mlff_exp.checkpoint import Checkpoint
from mlff_exp.config import Config, Precision
from mlff_exp.correctness import require_correct
from mlff_exp.engine import Engine, Prediction, check_finite, graph_breaks, make_engine
from mlff_exp.environment import describe
from mlff_exp.metrics import accuracy_vs_fp64
from mlff_exp.plots import plot_latency
from mlff_exp.result import RunResult, Timing
from mlff_exp.tasks import setup
from mlff_exp.timing import Candidate, mad_ms, measure, median_interval_ms, median_ms, p95_ms, ratio

N_GEOMETRIES = 8
DISPLACEMENT_ANG = 0.05

# What each speedup is measured against: the name of the metric and the key of the timing.
SPEEDUPS = {
    "speedup_vs_baseline": "eager_fp32",
    "speedup_vs_fp32": "same_engine_fp32",
    "speedup_vs_single_eager": "eager_fp32_single",
}


def run(config: Config, directory: Path) -> RunResult:
    """Measure one engine, precision and batch size; an ASE calculator has no baselines, it is timed alone."""
    subject = setup.subject(config)
    atoms = setup.system(config, subject.checkpoint)
    batch = collate([atoms] * config.batch_size, subject.engine.cutoff, device=subject.device)
    engine = _Workload(subject.engine, batch, config.seed)
    # Before the baselines exist, so that the peak is this engine's alone; the first call compiles.
    first_call_s, peak_memory_mib = engine.first_call()
    after_first_call = engine.engine.compiled_graphs

    workloads, reference = {"engine": engine}, None
    if subject.checkpoint is not None:
        reference = make_engine(subject.checkpoint.model, "eager", "fp64", subject.device)
        precision = cast(Precision, config.precision.name)
        require_correct(subject.engine, reference, engine.geometries[0], precision, config.seed)
        workloads |= _baselines(config, subject.checkpoint, engine, atoms)
    full = (config.task.min_calls, config.task.min_time_s)
    tenth = (-(-config.task.min_calls // 10), config.task.min_time_s / 10)
    candidates = {
        name: Candidate(workload.call, *(full if name == "engine" else tenth)) for name, workload in workloads.items()
    }
    timing = measure(candidates, subject.device)
    for name, workload in workloads.items():
        workload.check_calls(timing[name])
    timing["engine"] = replace(timing["engine"], first_call_s=first_call_s)

    metrics = {
        **_speed(timing["engine"], config.batch_size, batch.n_real_atoms),
        **_speedups(timing, config.batch_size),
        "first_call_s": first_call_s,
        "graph_count": float(engine.engine.compiled_graphs),
        "graph_breaks": float(graph_breaks()),
        "recompiles": float(engine.engine.compiled_graphs - after_first_call),
    }
    if reference is not None:
        metrics |= _accuracy(engine, reference)
    if peak_memory_mib is not None:
        metrics["peak_memory_mib"] = peak_memory_mib
    np.savez_compressed(
        directory / "samples.npz",
        allow_pickle=False,
        **{name: np.asarray(value.values_ms) for name, value in timing.items()},
    )
    plot_latency(timing, directory / "latency.png")
    return RunResult(
        config={},
        metrics=metrics,
        timing=timing,
        environment=describe(subject.device),
        artifacts=("samples.npz", "latency.png"),
        tags={**subject.tags, "engine.cuda_graphs": str(engine.engine.uses_cuda_graphs).lower()},
    )


def _baselines(config: Config, loaded: Checkpoint, engine: _Workload, atoms: Atoms) -> dict[str, _Workload]:
    """What the engine is compared with, all in IEEE FP32."""
    device = engine.engine.device
    eager = make_engine(loaded.model, "eager", "fp32", device)
    same = engine.engine if config.precision.name == "fp32" else setup.at_precision(config, loaded, "fp32")
    single = collate([atoms], eager.cutoff, device=device)
    return {
        "eager_fp32": _Workload(eager, engine.batch, config.seed),
        "same_engine_fp32": _Workload(same, engine.batch, config.seed),
        "eager_fp32_single": _Workload(eager, single, config.seed),
    }


class _Workload:
    """An engine on one shape of batch, at positions that change with every call."""

    def __init__(self, engine: Engine, batch: AtomicBatch, seed: int) -> None:
        self.engine, self.batch = engine, batch
        generator = torch.Generator().manual_seed(seed)
        shape = (N_GEOMETRIES, *batch.positions.shape)
        moves = torch.randn(shape, generator=generator, dtype=torch.float64).to(batch.positions.device)
        self.geometries = [batch.with_positions(batch.positions + DISPLACEMENT_ANG * move) for move in moves]
        self.evaluated = 0
        self.last: Tensor | None = None

    def call(self, number: int) -> Prediction:
        """Evaluate the geometry whose turn it is."""
        self.evaluated += 1
        prediction = self.engine(self.geometries[number % N_GEOMETRIES])
        self.last = prediction.energy
        return prediction

    def first_call(self) -> tuple[float, float | None]:
        """Seconds of the first call, and peak memory in MiB on CUDA."""
        cuda = self.engine.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        self.call(0)
        if not cuda:
            return time.perf_counter() - started, None
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        self.call(0)
        return seconds, torch.cuda.max_memory_allocated() / 2**20

    def check_calls(self, timing: Timing) -> None:
        """Assert that what was timed was evaluated: nothing came from a cache.

        Raises:
            RuntimeError: fewer evaluations than samples.
        """
        samples = len(timing.values_ms) + len(timing.warmup_ms)
        if self.evaluated < samples:
            raise RuntimeError(f"{samples} samples were taken of only {self.evaluated} evaluations")


def _speed(engine: Timing, batch_size: int, n_atoms: int) -> dict[str, float]:
    median = median_ms(engine)
    low, high = median_interval_ms(engine)
    return {
        "latency_median_ms": median,
        "latency_median_ms_ci_low": low,
        "latency_median_ms_ci_high": high,
        "latency_p95_ms": p95_ms(engine),
        "latency_mad_ms": mad_ms(engine),
        "throughput_systems_per_s": 1000 * batch_size / median,
        "atoms_per_s": 1000 * n_atoms / median,
    }


def _speedups(timing: dict[str, Timing], batch_size: int) -> dict[str, float]:
    """Against every baseline that was timed."""
    engine = timing["engine"]
    metrics: dict[str, float] = {}
    for metric, baseline in SPEEDUPS.items():
        if baseline not in timing:
            continue
        # Per structure: a single eager call does one, this engine does a batch.
        structures = batch_size if baseline == "eager_fp32_single" else 1
        speedup = ratio(timing[baseline], engine)
        metrics[metric] = structures * speedup.value
        metrics[f"{metric}_ci_low"] = structures * speedup.ci_low
        metrics[f"{metric}_ci_high"] = structures * speedup.ci_high
    if metrics.get("speedup_vs_baseline_ci_low", 0.0) > 1:
        saved_ms = median_ms(timing["eager_fp32"]) - median_ms(engine)
        metrics["break_even_calls"] = 1000 * engine.first_call_s / saved_ms
    return metrics


def _accuracy(workload: _Workload, reference: Engine) -> dict[str, float]:
    """On the very geometries that were timed."""
    real = workload.batch.is_atom
    n_atoms = workload.batch.per_system(real).sum(dim=1)
    energies, forces, reference_energies, reference_forces = [], [], [], []
    for batch in workload.geometries:
        prediction, expected = workload.engine(batch), reference(batch)
        check_finite(prediction, batch, workload.engine.precision)
        energies.append(prediction.energy)
        forces.append(prediction.forces[real])
        reference_energies.append(expected.energy)
        reference_forces.append(expected.forces[real])
    energy, force, reference_energy, reference_force = (
        torch.cat(part).cpu().numpy() for part in (energies, forces, reference_energies, reference_forces)
    )
    counts = n_atoms.repeat(len(energies)).cpu().numpy()
    return accuracy_vs_fp64(energy, force, reference_energy, reference_force, counts)
