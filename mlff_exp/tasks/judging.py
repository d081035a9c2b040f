"""Judge recorded trajectories again, without integrating."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mlff_exp.config import ConfigError, Gate, Limit
from mlff_exp.results import HIGH, LOW, ResultError, RunResult, Verdict
from mlff_exp.tasks.ensemble import PER_START, Ensemble, load_ensembles
from mlff_exp.tasks.gradient import (
    CIRCULATION,
    DIFFERENCES,
    ENGINE_CIRCULATION,
    ENGINE_DIFFERENCES,
    inapplicable_metrics,
)
from mlff_exp.tasks.nve_files import TRAJECTORY_FILE
from mlff_exp.tasks.registry import TASKS

ONCE = (  # metrics that do not come from the recorded frames
    DIFFERENCES,
    CIRCULATION,
    ENGINE_DIFFERENCES,
    ENGINE_CIRCULATION,
    "fluctuation_ratio_dt",
    "time_reversal_error_ang",
    "rotation_percent_of_kinetic",  # of the velocities of all starts, which are not recorded
    "teacher_energy_drift_mean_mev_per_atom_per_ps",
)


def judge_recorded(directory: Path, gate: Gate | None = None, n_starts: int | None = None) -> dict[str, Verdict]:
    """Judge the recorded starts of a run of ``task=nve`` again.

    Args:
        directory: the directory of the run.
        gate: the gate to judge by; the run's own if None.
        n_starts: judge only this many starts, from the first on; all if None.

    Returns:
        The verdict on each system, by name.

    Raises:
        ResultError: the run is not one of ``task=nve``, did not finish, or left no trajectory.
        ConfigError: the run has fewer starts.
    """
    result = RunResult.load(directory)
    task = result.key.task
    if result.verdict is None or task not in TASKS or not TASKS[task].judged:
        judged = " or ".join(f"task={one.name}" for one in TASKS if one.judged)
        raise ResultError(
            f"{directory} holds a {result.status} run of task={task}: only a finished run of {judged} has something to "
            "judge"
        )
    ensembles = load_ensembles(directory / TRAJECTORY_FILE)
    if n_starts is not None and not 1 <= n_starts <= ensembles[0].n_starts:
        raise ConfigError(f"--starts {n_starts}: the run has 1 to {ensembles[0].n_starts} starts to judge")
    by = _recorded_gate(result.config["gate"]) if gate is None else gate
    return {each.name: _judge(_first(each, n_starts), result, by) for each in ensembles}


def _judge(ensemble: Ensemble, result: RunResult, gate: Gate) -> Verdict:
    metrics = ensemble.metrics(result.config["task"]["temperature_k"])
    for metric in ONCE:
        for part in (metric, f"{metric}{LOW}", f"{metric}{HIGH}"):
            for name in (part, f"{part}/{ensemble.name}"):
                if name in result.metrics:
                    metrics[part] = result.metrics[name]
    assert result.verdict is not None, "it was asked for"
    recorded = result.verdict.on(ensemble.name)
    excused = inapplicable_metrics(result.config["precision"]["name"])
    excused |= {each.metric: each.inapplicable for each in recorded.criteria if each.inapplicable}
    return ensemble.verdict(metrics, gate, list(recorded.faults), excused)


def _first(ensemble: Ensemble, n_starts: int | None) -> Ensemble:
    return replace(ensemble, **{name: getattr(ensemble, name)[:, :n_starts] for name in PER_START})


def _recorded_gate(recorded: dict[str, Any]) -> Gate:
    return Gate(recorded["name"], {metric: Limit(**limit) for metric, limit in recorded["criteria"].items()})
