"""NVE molecular dynamics from a prepared start, judged by the gate."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from ase import Atoms

from mlff_exp.common import progress_bar
from mlff_exp.config import Config, ConfigError, FileSystem, Precision
from mlff_exp.distill import teacher_calculator
from mlff_exp.dynamics import (
    Dynamics,
    StartError,
    TemperatureError,
    ase_steps,
    changed_bonds,
    find_minimum,
    fluctuation_ratio_dt,
    load_state,
    motion_along,
    potential_along,
    prepare_start,
    save_state,
    teacher_drift,
    time_reversal_error,
    unbound_atoms,
)
from mlff_exp.engines import REFERENCE_ENGINE, AseEngine, Engine, make_engine
from mlff_exp.measure import describe_machine, require_correct
from mlff_exp.report import plot_nve
from mlff_exp.results import (
    STATE_FILE,
    USUAL_TEMPERATURE,
    USUAL_TIMESTEP,
    Estimate,
    Fault,
    FaultKind,
    RunResult,
    Verdict,
    combine_verdicts,
    judge_gate,
    mean_of_starts,
)
from mlff_exp.structures import AtomicBatch, calculator_identity, structure_identity
from mlff_exp.tasks.ensemble import MIN_FRAMES, Ensemble
from mlff_exp.tasks.gradient import gradient_metrics, inapplicable_metrics
from mlff_exp.tasks.motion import motion_of
from mlff_exp.tasks.nve_files import REPORT_FILE, TRAJECTORY_FILE, frame_files, series, write_report, write_trajectory
from mlff_exp.tasks.options import NveTask
from mlff_exp.tasks.setup import ModelUnderTest, load_systems, prepare_model
from mlff_exp.tasks.showing import Keep, keep_nothing, with_files

MAX_NAMED = 5  # bonds in a message
DISPLACEMENT_ANG = 0.05
KEEP_EVERY_S = 60.0
TEACHER_DRIFT = "teacher_energy_drift_mev_per_atom_per_ps"  # of the start that drifts most
TEACHER_DRIFT_MEAN = "teacher_energy_drift_mean_mev_per_atom_per_ps"
ROTATION = "rotation_percent_of_kinetic"
SAME_WHEN_RESUMED = ("timestep_fs", "temperature_k", "record_every", "replicas", "settle_ps", "probe_ps", "integrator")
# Metrics that are also shown for the engine's own energy; the energy of eager FP64 at the same frames is judged.
ENGINE_METRICS = ("energy_drift_mev_per_atom_per_ps", "energy_fluctuation_mev_per_atom")


def run(config: Config, directory: Path, keep: Keep = keep_nothing) -> RunResult:
    """Relax, prepare the start, integrate and judge. Files are written after ``keep`` has the verdict."""
    task, tested = config.task, prepare_model(config)
    engine, checkpoint = tested.engine, tested.checkpoint
    usual = motion_of(config.system, task.systems)
    tags = tested.tags | {USUAL_TIMESTEP: f"{usual.timestep_fs:g}", USUAL_TEMPERATURE: f"{usual.temperature_k:g}"}
    reference = _reference(tested)
    # Before anything else, because it may not be installed.
    teacher = AseEngine(teacher_calculator()) if task.teacher_check else None
    given, minima, faults = _minima(config, tested, reference)
    dynamics = _dynamics(config, engine, minima)
    rng = np.random.default_rng(config.seed)
    if checkpoint is not None:
        away = DISPLACEMENT_ANG * torch.from_numpy(rng.normal(size=dynamics.batch.positions.shape))
        displaced = dynamics.batch.with_positions(dynamics.batch.positions + away.to(tested.device))
        require_correct(engine, reference, displaced, cast(Precision, config.precision.name), config.seed)
    relaxed_systems = {name: relaxed for name, (relaxed, _) in minima.items()}
    found = gradient_metrics(config, engine, reference, dynamics, relaxed_systems)
    excused = {
        name: inapplicable_metrics(config.precision.name) | _rotation_inapplicable(relaxed)
        for name, relaxed in relaxed_systems.items()
    }
    same = {
        **{key: getattr(task, key) for key in SAME_WHEN_RESUMED},
        "systems": {name: structure_identity(atoms) for name, atoms in given.items()},
        "engine": engine.name,
        "precision": engine.precision,
        "seed": config.seed,
        "force field": _force_field(config, tested),
    }
    since = None
    if task.resume is not None:
        since, start = load_state(Path(task.resume), same, tested.device)
        state = since.state
        if state.step > task.n_steps:
            reached_ps = state.step * task.timestep_fs / 1000
            raise ConfigError(
                f"task.resume={task.resume} is at {reached_ps:g} ps, beyond task.duration_ps={task.duration_ps:g}"
            )
    else:
        settle, probe = (round(1000 * ps / task.timestep_fs) for ps in (task.settle_ps, task.probe_ps))
        total = settle + probe
        with progress_bar(total=total, desc="preparing the start", unit="step", leave=False, mininterval=0.5) as bar:

            def done(steps: int) -> None:
                if bar.n + steps > bar.total:  # the mean was off, and is probed once more
                    bar.total += probe
                bar.update(steps)

            try:
                state = prepare_start(dynamics, task.temperature_k, task.settle_ps, task.probe_ps, rng, done)
            except (StartError, TemperatureError) as error:
                # A force field that can't be started is no broken run, but the clearest of verdicts.
                not_started = Fault(FaultKind.NOT_STARTED, str(error))
                verdicts = {
                    name: judge_gate(
                        found[name], config.gate, [*faults[name], not_started], task.replicas, excused[name]
                    )
                    for name in minima
                }
                if isinstance(error, TemperatureError) and not _missed(verdicts):
                    raise  # the force field may be sound, and the probe too short
                result = RunResult(
                    config={},
                    metrics=_flat(found, config),
                    environment=describe_machine(tested.device),
                    verdict=_one(verdicts, task),
                    tags=tags,
                )
                keep(result)
                report = partial(write_report, None, verdicts, found, {}, config, relaxed_systems)
                return with_files(result, directory, {REPORT_FILE: report})
        state.step = 0
        start = state.copy()

    started, first_step = time.perf_counter(), state.step
    with progress_bar(
        total=task.n_steps, initial=first_step, desc="NVE", unit="step", leave=False, mininterval=0.5
    ) as bar:
        trajectory = dynamics.run(
            state,
            task.n_steps,
            task.record_every,
            bar.update,
            since=since,
            keep=lambda current: save_state(directory, current, start, same),
            keep_every_s=KEEP_EVERY_S,
        )
    seconds = time.perf_counter() - started

    engine_potential = trajectory.potential
    judged = trajectory
    if checkpoint is not None:
        judged = replace(trajectory, potential=potential_along(reference, dynamics, trajectory))
    # A trajectory that blew up has no trend, and the teacher can't evaluate its last frames.
    fitted = trajectory.blow_up is None and len(trajectory.steps) >= MIN_FRAMES
    trends = teacher_drift(teacher, dynamics, judged) if teacher is not None and fitted else None
    ensembles = []
    for index, (name, (relaxed, minimum_energy)) in enumerate(minima.items()):
        first = index * task.replicas
        described = first, task.replicas, name, relaxed, minimum_energy, dynamics.has_bonds(first)
        ensemble = Ensemble.of(judged, *described)
        ensembles.append(ensemble)
        metrics = found[name] | ensemble.metrics(task.temperature_k)
        if len(trajectory.steps) >= MIN_FRAMES:
            metrics |= motion_along(trajectory, first, task.replicas, relaxed)
        faults[name] += ensemble.below_minimum()
        if checkpoint is not None:
            own = Ensemble.of(trajectory, *described).metrics(task.temperature_k)
            metrics |= {f"engine_{metric}": own[metric] for metric in ENGINE_METRICS if metric in own}
        if config.gate.criteria.keys() & {"fluctuation_ratio_dt", "time_reversal_error_ang"}:
            metrics["fluctuation_ratio_dt"] = fluctuation_ratio_dt(reference, dynamics, start, first)
            metrics["time_reversal_error_ang"] = time_reversal_error(reference, dynamics, start, first)
        if trends is not None:
            metrics |= _teacher_metrics(trends[first : first + task.replicas])
        found[name] = {metric: value for metric, value in metrics.items() if math.isfinite(value)}
        if trajectory.blow_up is not None:
            faults[name].append(Fault(FaultKind.BLEW_UP, trajectory.blow_up))
    verdicts = {
        each.name: each.verdict(found[each.name], config.gate, faults[each.name], excused[each.name])
        for each in ensembles
    }
    speed = _speed(int(trajectory.steps[-1]) - first_step, seconds, task.timestep_fs)
    result = RunResult(
        config={},
        metrics=speed | _flat(found, config),
        series=series(judged, engine_potential),
        environment=describe_machine(tested.device),
        verdict=_one(verdicts, task),
        tags=tags,
    )
    keep(result)
    result = with_files(
        result,
        directory,
        {
            REPORT_FILE: partial(write_report, judged, verdicts, found, speed, config, relaxed_systems),
            TRAJECTORY_FILE: partial(write_trajectory, judged, engine_potential, ensembles),
            "quick_md_validation.png": partial(plot_nve, judged, dynamics.names, task.temperature_k),
            **frame_files(dynamics, judged, minima, task.replicas),
        },
    )
    if TRAJECTORY_FILE in result.artifacts:  # else it can be made once more from the last state
        (directory / STATE_FILE).unlink(missing_ok=True)
    return result


def _one(verdicts: dict[str, Verdict], task: NveTask) -> Verdict:
    """The verdict on the only system, or on several together."""
    return combine_verdicts(verdicts) if task.systems or len(verdicts) > 1 else next(iter(verdicts.values()))


def _missed(verdicts: Mapping[str, Verdict]) -> bool:
    """Whether a system has missed a criterion."""
    return any(criterion.held is False for verdict in verdicts.values() for criterion in verdict.criteria)


def _rotation_inapplicable(atoms: Atoms) -> dict[str, str]:
    """The metric of rotation with the reason why it means nothing, if the system is periodic."""
    return {ROTATION: "a periodic system does not rotate"} if atoms.pbc.any() else {}


def _teacher_metrics(trends: list[Estimate]) -> dict[str, float]:
    """Trends of V_teacher + K of the starts of one system: of that which drifts most, and their mean."""
    steepest = max(trends, key=lambda slope: abs(slope.value))
    mean = mean_of_starts(np.array([slope.value for slope in trends])) if len(trends) > 1 else trends[0]
    return steepest.as_metrics(TEACHER_DRIFT) | mean.as_metrics(TEACHER_DRIFT_MEAN)


def _flat(found: Mapping[str, Mapping[str, float]], config: Config) -> dict[str, float]:
    """Metrics of all systems; the name of a metric ends with its system if there are several."""
    if config.task.systems or len(found) > 1:
        return {f"{metric}/{name}": value for name, metrics in found.items() for metric, value in metrics.items()}
    return dict(next(iter(found.values())))


def batches(config: Config, tested: ModelUnderTest) -> Iterator[AtomicBatch]:
    """Yield the batches that are evaluated. ASE's integrator evaluates each system by itself too."""
    _, minima, _ = _minima(config, tested, _reference(tested))
    yield _dynamics(config, tested.engine, minima).batch


def _reference(tested: ModelUnderTest) -> Engine:
    """Eager FP64 of the weights, so that E − E_min is exact; an ASE calculator is its own reference."""
    if tested.checkpoint is None:
        return tested.engine
    return make_engine(tested.checkpoint.model, REFERENCE_ENGINE, "fp64", tested.device)


def _force_field(config: Config, tested: ModelUnderTest) -> str:
    """Return what identifies the force field of a resumed run: the weights, or the calculator with its arguments."""
    if tested.checkpoint is not None:
        return tested.checkpoint.weights_sha256
    return calculator_identity(config.model.calculator)


def _minima(
    config: Config, tested: ModelUnderTest, reference: Engine
) -> tuple[dict[str, Atoms], dict[str, tuple[Atoms, float]], dict[str, list[Fault]]]:
    """Systems as they are given, at their minima with the energy, eV, and what is wrong with each; by name.

    Raises:
        ConfigError: a single atom, or a file with atoms that feel no force or with a structure that relaxing makes
            another molecule of.
    """
    given = load_systems(config, tested)
    minima: dict[str, tuple[Atoms, float]] = {}
    faults: dict[str, list[Fault]] = {}
    for name, atoms in given.items():
        from_file = not config.task.systems and isinstance(config.system, FileSystem)
        where = f"system.path={config.system.path!r}" if from_file else f"system.name={name}"
        if len(atoms) < 2:
            raise ConfigError(f"{where} is a single atom: it has no internal motion, so task=nve can't judge it")
        found = find_minimum(atoms, reference, np.random.default_rng(config.seed))
        minima[name] = found.atoms, found.energy
        faults[name] = [Fault(FaultKind.NOT_RELAXED, f"{name} {fault}") for fault in found.faults]
        changed = changed_bonds(atoms, found.atoms) if np.isfinite(found.atoms.positions).all() else []
        if changed:
            listed = ", ".join(changed[:MAX_NAMED]) + f" and {len(changed) - MAX_NAMED} more" * (
                len(changed) > MAX_NAMED
            )
            if from_file:
                raise ConfigError(
                    f"{where} holds no structure near a minimum: relaxing it changes its bonds: {listed}. Give "
                    "three-dimensional positions in Å"
                )
            told = f"{name} changes its bonds when it relaxes: {listed}"
            faults[name].append(Fault(FaultKind.NOT_RELAXED, told))
        elif free := unbound_atoms(found.atoms, reference, np.random.default_rng(config.seed)):
            listed = ", ".join(map(str, free[:MAX_NAMED])) + ", …" * (len(free) > MAX_NAMED)
            told = f"atoms {listed} feel no force of the others"
            if from_file:
                raise ConfigError(f"{where}: {told}, so task=nve can't judge it: give positions in Å of bound atoms")
            faults[name].append(Fault(FaultKind.UNBOUND, f"{name}: {told}"))
    return given, minima, faults


def _dynamics(config: Config, engine: Engine, minima: dict[str, tuple[Atoms, float]]) -> Dynamics:
    task = config.task
    moving = [relaxed.copy() for relaxed, _ in minima.values() for _ in range(task.replicas)]
    return Dynamics(
        engine,
        moving,
        task.timestep_fs,
        names=[f"{name}, replica {number}" for name in minima for number in range(task.replicas)],
        advance=ase_steps(engine, moving, task.timestep_fs) if task.integrator == "ase" else None,
    )


def _speed(n_steps: int, seconds: float, timestep_fs: float) -> dict[str, float]:
    """Return metrics of the speed of this process; empty if it was resumed after the last step."""
    if n_steps == 0:
        return {}
    return {"steps_per_s": n_steps / seconds, "ns_per_day": n_steps / seconds * timestep_fs * 86400 / 1e6}
