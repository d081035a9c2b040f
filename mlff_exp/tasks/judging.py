"""Judge recorded trajectories again, without integrating."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlff_exp.common import typed_value
from mlff_exp.config import ConfigError, Gate
from mlff_exp.results import HIGH, LOW, RESULT_FILE, ResultError, RunResult, Verdict
from mlff_exp.tasks.ensemble import PER_START, Ensemble, load_ensembles
from mlff_exp.tasks.gradient import (
    CIRCULATION,
    DIFFERENCES,
    ENGINE_CIRCULATION,
    ENGINE_DIFFERENCES,
    inapplicable_metrics,
)
from mlff_exp.tasks.machine import check_criteria
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


@dataclass(frozen=True)
class _Settings:
    """What a run is judged by, of its record."""

    gate: Gate
    temperature_k: float
    precision: str


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
    if "task" not in result.config:
        raise ResultError(f"{directory / RESULT_FILE} is not a result of this version: its config has no 'task'")
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
    try:
        settings = _settings(result)
    except ValueError as error:
        raise ResultError(f"{directory / RESULT_FILE} is not a result of this version: {error}") from error
    if gate is not None:
        settings = replace(settings, gate=gate)
    check_criteria(settings.gate)
    if not settings.gate.criteria:
        raise ConfigError(f"gate={settings.gate.name} has no criteria: nothing can be judged by it")
    return {each.name: _judge(_first(each, n_starts), result, settings) for each in ensembles}


def _settings(result: RunResult) -> _Settings:
    """Read the settings of a run from its record.

    Raises:
        ValueError: one is missing or of another type. The message names it.
    """
    config = result.config
    task, precision = (typed_value(Mapping[str, Any], config.get(key), key) for key in ("task", "precision"))
    return _Settings(
        gate=typed_value(Gate, config.get("gate"), "gate"),
        temperature_k=typed_value(float, task.get("temperature_k"), "task.temperature_k"),
        precision=typed_value(str, precision.get("name"), "precision.name"),
    )


def _judge(ensemble: Ensemble, result: RunResult, settings: _Settings) -> Verdict:
    metrics = ensemble.metrics(settings.temperature_k)
    for metric in ONCE:
        for part in (metric, f"{metric}{LOW}", f"{metric}{HIGH}"):
            for name in (part, f"{part}/{ensemble.name}"):
                if name in result.metrics:
                    metrics[part] = result.metrics[name]
    assert result.verdict is not None, "it was asked for"
    recorded = result.verdict.on(ensemble.name)
    excused = inapplicable_metrics(settings.precision)
    excused |= {each.metric: each.inapplicable for each in recorded.criteria if each.inapplicable}
    return ensemble.verdict(metrics, settings.gate, list(recorded.faults), excused)


def _first(ensemble: Ensemble, n_starts: int | None) -> Ensemble:
    return replace(ensemble, **{name: getattr(ensemble, name)[:, :n_starts] for name in PER_START})
