"""Time an engine alternately with its baselines, and compare its numbers with eager FP64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mlff_exp.config import NATIVE, Config, ConfigError
from mlff_exp.engines import (
    Engine,
    check_finite,
    count_graph_breaks,
    count_graphs,
    stop_compile_workers,
)
from mlff_exp.measure import (
    Candidate,
    DisturbanceMonitor,
    accuracy_vs_fp64,
    describe_machine,
    judge_controls,
    make_controls,
    measure_side_by_side,
    profile_kernels,
    wall_median_ms,
    write_kernels,
)
from mlff_exp.models import Capabilities
from mlff_exp.report import plot_latency
from mlff_exp.results import FORCES_TAG, STRESS_LEFT_OUT, RunResult, Timing
from mlff_exp.structures import AtomicBatch, collate
from mlff_exp.tasks.baselines import (
    calculator_baseline,
    eager_baseline,
    make_reference,
    other_baselines,
    require_all_correct,
)
from mlff_exp.tasks.gpu_memory import allocated_bytes, graph_pools_mib, peak_mib
from mlff_exp.tasks.isolated import isolated_energies
from mlff_exp.tasks.own_forces import check_own_forces
from mlff_exp.tasks.setup import ModelUnderTest, described_systems, gives_stress, prepare_model
from mlff_exp.tasks.showing import Keep, keep_nothing, with_files
from mlff_exp.tasks.speedups import repeated_baselines, speed_metrics, speedup_metrics
from mlff_exp.tasks.workload import Workload, all_evaluated


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
    device = torch.device(config.device)
    before, pools_before = allocated_bytes(device), graph_pools_mib(device)
    tested = prepare_model(config)
    on_gpu, memory = tested.device.type == "cuda", {}
    (batch,) = batches(config, tested)
    engine = Workload(tested.engine, batch, config.seed)
    if on_gpu:
        # The baselines do not exist yet, so that the peak belongs to this engine alone.
        pools = graph_pools_mib(device) - pools_before
        memory["peak_memory_mib"] = peak_mib(engine.call, tested.device, before) + pools
    after_first_call = engine.engine.compiled_graphs

    workloads, reference = {"engine": engine}, None
    if tested.checkpoint is not None:
        before = allocated_bytes(tested.device)
        workloads["eager_fp32"] = eager_baseline(config, tested.checkpoint, batch)
        if on_gpu:
            peak = peak_mib(workloads["eager_fp32"].call, tested.device, before)
            memory["memory_vs_baseline"] = memory["peak_memory_mib"] / peak
        single = make_batch(config, tested, 1)
        workloads |= other_baselines(config, tested, tested.checkpoint, batch, single)
        reference = make_reference(config, tested.checkpoint, tested.device)
        require_all_correct(workloads, reference, config.seed)
        workloads |= calculator_baseline(config, tested, reference, single)
    repeats = repeated_baselines(config) if reference is not None else {}
    monitor = DisturbanceMonitor(tested.device)
    compiled = count_graphs()
    timing = _time(config, workloads, repeats, monitor)
    again = count_graphs() - compiled
    control = judge_controls(timing, "engine")

    metrics = {
        **memory,
        **speed_metrics(timing["engine"], config.batch_size, batch.n_atoms),
        **speedup_metrics(timing, config),
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
    if tested.has_own_forces:
        first = next(iter(described_systems(config, tested).values()))
        own, forces[FORCES_TAG] = check_own_forces(reference or tested.engine, first, config.seed)
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
        environment={**describe_machine(tested.device), **monitor.summary()},
        tags={
            **tested.tags,
            **forces,
            "engine.cuda_graphs": str(engine.engine.uses_cuda_graphs).lower(),
            "timing.trust": "; ".join(monitor.faults() + control.faults) or "ok",
            **_stress_tag(config, tested.capabilities, batch),
        },
    )
    keep(result)
    return with_files(result, directory, files)


def _time(
    config: Config, workloads: Mapping[str, Workload], repeats: Mapping[str, str], monitor: DisturbanceMonitor
) -> dict[str, Timing]:
    """Time all workloads alternately, with the two controls; ``repeats`` are taken from another candidate."""
    task = config.task
    full = (task.min_calls, task.min_time_s, task.max_time_s)
    tenth = (-(-task.min_calls // 10), task.min_time_s / 10, task.max_time_s / 10)
    candidates = {
        name: Candidate(workload.call, *(full if name == "engine" else tenth))
        for name, workload in workloads.items()
        if name not in repeats
    }
    candidates |= make_controls(Candidate(workloads["engine"].call, *tenth))
    stop_compile_workers()
    with all_evaluated(list(workloads.values())):
        timing = measure_side_by_side(candidates, workloads["engine"].engine.device, between=monitor.sample)
    timing |= {name: timing[measured] for name, measured in repeats.items()}
    return timing | {name: replace(timing[name], first_call_s=one.first_call_s) for name, one in workloads.items()}


def _write_samples(timing: Mapping[str, Timing], path: Path) -> None:
    samples = {name: np.asarray(value.values_ms) for name, value in timing.items()}
    np.savez_compressed(path, allow_pickle=False, **samples)


def batches(config: Config, tested: ModelUnderTest) -> Iterator[AtomicBatch]:
    """Yield the batch that is timed; all batches of the run have its shape.

    Args:
        config: the configuration.
        tested: the model under test.
    """
    yield make_batch(config, tested, config.batch_size)


def make_batch(config: Config, tested: ModelUnderTest, n_systems: int) -> AtomicBatch:
    """Return a batch of the systems of the configuration, in turn.

    Args:
        config: the configuration.
        tested: the model under test.
        n_systems: systems of the batch.

    Raises:
        ConfigError: a system can't be used, or has no stress where one is required.
    """
    structures = list(described_systems(config, tested).values())
    filled = [structures[index % len(structures)] for index in range(n_systems)]
    batch = collate(filled, tested.engine.cutoff, near=tested.engine.shorter_cutoffs, device=tested.device)
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


def _accuracy(workload: Workload, reference: Engine) -> dict[str, float]:
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
