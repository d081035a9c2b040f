"""Write the files of an NVE run except the plot: trajectory, frames and report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mlff_exp.config import NATIVE, Config
from mlff_exp.dynamics import Dynamics, FloatArray, Trajectory
from mlff_exp.measure import internal_degrees_of_freedom
from mlff_exp.results import ENOUGH_PS, HIGH, INTERVAL, LOW, Verdict, advice_for, format_limits, model_word
from mlff_exp.structures import copy_without_labels
from mlff_exp.tasks.ensemble import Ensemble, ensemble_columns
from mlff_exp.tasks.motion import motion_of

TRAJECTORY_FILE = "trajectory_data.npz"
REPORT_FILE = "validation_report.txt"
MAX_FRAMES = 500
MAX_SERIES_POINTS = 2000
HELD = {True: "yes", False: "NO", None: ""}  # a metric that was not measured has "not measured" instead of a value


def series(trajectory: Trajectory, engine_potential: FloatArray) -> dict[str, list[tuple[int, float]]]:
    """Return series of the first replica for MLflow, at most `MAX_SERIES_POINTS` points each."""
    thin = slice(None, None, max(1, -(-len(trajectory.steps) // MAX_SERIES_POINTS)))
    columns = {
        "total_energy_ev": trajectory.potential[:, 0] + trajectory.kinetic[:, 0],
        "engine_total_energy_ev": engine_potential[:, 0] + trajectory.kinetic[:, 0],
        "temperature_k": trajectory.temperature[:, 0],
        "displacement_ang": trajectory.displacement[:, 0],
    }
    return {
        name: [
            (int(step), float(value))
            for step, value in zip(trajectory.steps[thin], values[thin], strict=True)
            if np.isfinite(value)
        ]
        for name, values in columns.items()
    }


def write_trajectory(
    trajectory: Trajectory, engine_potential: FloatArray, ensembles: list[Ensemble], path: Path
) -> None:
    """Write all frames: judged energies, the engine's own energies, temperatures, positions and derived columns.

    Args:
        trajectory: the frames.
        engine_potential: [n_frames, n_systems] potential energy that the engine gave, eV.
        ensembles: the starts of each system.
        path: path of the file.
    """
    columns: dict[str, Any] = {
        "steps": trajectory.steps,
        "engine_potential_energy_ev": engine_potential,
        "positions_ang": trajectory.positions,
        **ensemble_columns(ensembles),
    }
    np.savez_compressed(path, **columns)


def frame_files(
    dynamics: Dynamics, trajectory: Trajectory, names: Iterable[str], n_replicas: int
) -> dict[str, Callable[[Path], None]]:
    """Return functions that write the first replica of each system for a viewer, by file name."""
    return {
        f"frames_{name}.extxyz": partial(write_frames, dynamics.systems[index], trajectory, index)
        for name, index in zip(names, range(0, len(dynamics.systems), n_replicas), strict=True)
    }


def write_frames(start: Atoms, trajectory: Trajectory, index: int, path: Path) -> None:
    """Write at most `MAX_FRAMES` frames of a system as extended XYZ.

    A frame holds the atoms with their velocities and energy. Other data of the file from which they came is left out.

    Args:
        start: the structure at the start.
        trajectory: the frames of all systems.
        index: index of the system in the trajectory.
        path: path of the file.
    """
    thin = slice(None, None, -(-len(trajectory.steps) // MAX_FRAMES))
    frames = []
    for positions, velocities, energy in zip(
        trajectory.positions[thin, index, : len(start)],
        trajectory.velocities[thin, index, : len(start)],
        trajectory.potential[thin, index],
        strict=True,
    ):
        frame = copy_without_labels(start)
        frame.positions = positions
        frame.set_velocities(velocities)
        frame.calc = SinglePointCalculator(frame, energy=float(energy))
        frames.append(frame)
    # The format is given, because ASE would take frames_POSCAR.extxyz for a file of VASP.
    write(path, frames, format="extxyz")


def write_report(
    trajectory: Trajectory | None,
    verdicts: Mapping[str, Verdict],
    found: Mapping[str, Mapping[str, float]],
    speed: Mapping[str, float],
    config: Config,
    minima: Mapping[str, Atoms],
    path: Path,
) -> None:
    """Write the report as text: every criterion, the decision on each system, and advice on a NO-GO.

    Args:
        trajectory: the frames; None if the start could not be prepared.
        verdicts: verdicts by name of the system.
        found: metrics by name of the system.
        speed: metrics of the run's speed.
        config: the configuration of the run.
        minima: the relaxed systems by name.
        path: path of the file.
    """
    task = config.task
    native = config.engine.name == NATIVE
    how = "as it is" if native else f"{config.engine.name}, {config.precision.name}"
    lines = [
        f"NVE validation of {model_word(asdict(config.model))} on {', '.join(verdicts)}",
        f"{0 if trajectory is None else trajectory.times_ps[-1]:g} ps of {task.duration_ps:g} ps"
        f"{_conditions(config)}; {task.replicas} replica{'s' * (task.replicas > 1)}, {how}",
    ]
    if trajectory is None:
        lines.append("The start could not be prepared, so there is no trajectory.")
    elif trajectory.times_ps[-1] < ENOUGH_PS:
        lines.append(f"Below {ENOUGH_PS:g} ps a drift can't be distinguished from slow oscillations of the energy.")
    if trajectory is not None and speed:
        n_trajectories = trajectory.potential.shape[1]
        each = f" for each of the {n_trajectories} trajectories" if n_trajectories > 1 else ""
        lines.append(f"{speed['steps_per_s']:.0f} steps/s, {speed['ns_per_day']:.1f} ns/day{each}")
    if task.replicas == 1:
        lines.append("One start: the walk of the energy, which is the spread between starts, is not known.")
    for name, verdict in verdicts.items():
        lines += ["", f"{name}: {_what_moved(minima[name])}", *verdict_lines(verdict)]
        if verdict.decision == "NO-GO":
            lines += ["What to do:", *(f"  {each}" for each in advice_for(verdict, frames=trajectory is not None))]
        others = _other_lines(verdict, found[name])
        lines += ["not judged"] * bool(others) + others
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _what_moved(atoms: Atoms) -> str:
    """Return the size of a system, and what its energies and temperatures refer to."""
    if not np.isfinite(atoms.positions).all():
        return f"{len(atoms)} atoms, without a minimum"
    dof = internal_degrees_of_freedom(atoms.positions, atoms.pbc)
    periodic, where = int(atoms.pbc.sum()), "its minimum"
    if periodic:
        where += f" in the given cell, which is periodic in {periodic} direction{'s' * (periodic > 1)}"
    return f"{len(atoms)} atoms with {dof} degrees of freedom; E_min is the energy of {where}"


def _other_lines(verdict: Verdict, found: Mapping[str, float]) -> list[str]:
    """Format the metrics that no criterion judges, each with its interval."""
    judged = {criterion.metric for criterion in verdict.criteria}
    lines = []
    for metric, value in found.items():
        name, slash, group = metric.partition("/")
        if name in judged or INTERVAL.search(name):
            continue
        low, high = (found.get(f"{name}{end}{slash}{group}") for end in (LOW, HIGH))
        interval = "" if low is None or high is None else f"  [{low:.4g}, {high:.4g}]"
        lines.append(f"{metric:<42}{value:>14.4g}{interval}")
    return lines


def _conditions(config: Config) -> str:
    """Return timestep, temperature and length, each with what is usual, and why, if it is another."""
    task, usual = config.task, motion_of(config.system, config.task.systems)
    steps = f"{task.timestep_fs:g} fs steps, {usual.reason}"
    if task.timestep_fs != usual.timestep_fs:
        steps = f"{task.timestep_fs:g} fs steps (usual are {usual.timestep_fs:g} fs, {usual.reason})"
    heat = f"{task.temperature_k:g} K" + f", {usual.cold}" * bool(usual.cold)
    if task.temperature_k != usual.temperature_k:
        heat = f"{task.temperature_k:g} K (usual are {usual.temperature_k:g} K{f', {usual.cold}' * bool(usual.cold)})"
    length = "" if task.duration_ps == usual.duration_ps else f" (usual are {usual.duration_ps:g} ps)"
    return f"{length}; {steps}; {heat}"


def verdict_lines(verdict: Verdict) -> list[str]:
    """Format a verdict as lines: a table of its criteria, the decision and the reasons.

    Args:
        verdict: the verdict on one system or on all.
    """
    lines = [f"{'criterion':<42}{'value':>14}  {'allowed':<16}held"]
    for criterion in verdict.criteria:
        absent = "" if criterion.inapplicable else "not measured"
        value = absent if criterion.value is None else f"{criterion.value:.4g}"
        allowed = format_limits(criterion.min, criterion.max)
        held = "not decided" if criterion.undecided else HELD[criterion.held]
        interval = "" if criterion.low is None else f"  [{criterion.low:.4g}, {criterion.high:.4g}]"
        if criterion.inapplicable:
            held = f"not judged: {criterion.inapplicable}"
        lines.append(f"{criterion.metric:<42}{value:>14}  {allowed:<16}{held}{interval}")
    starts = f"{verdict.n_starts} start{'s' * (verdict.n_starts > 1)}"
    lines.append(f"Decision (gate={verdict.gate}, {starts}): {verdict.decision}")
    return lines + [f"  {reason}" for reason in verdict.reasons]
