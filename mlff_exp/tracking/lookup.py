"""Find a recorded verdict, or the directory of a recorded run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from mlff_exp.config import ConfigError, Gate, NveTask
from mlff_exp.results import RESULT_FILE, ResultError, RunResult
from mlff_exp.tracking.address import expanded
from mlff_exp.tracking.describe import params as as_params
from mlff_exp.tracking.faults import answering, first_line
from mlff_exp.tracking.life import DIRECTORY_TAG
from mlff_exp.tracking.store import Store


def found_go(store: Store | None, weights: str, gate: Gate, outputs: Path) -> bool:
    """Whether these weights have passed a gate, with these very limits, in FP32 and for at least 100 ps.

    Args:
        store: to look in, or None to look at what runs left on disk.
        weights: their hash.
        gate: to pass.
        outputs: where runs leave their directories.

    Raises:
        ConfigError: the store can't be reached.
    """
    if store is None:
        return any(_is_go(path.parent, weights, gate) for path in outputs.rglob(RESULT_FILE))
    # By its name as well, because a store answers that fast.
    wanted = (
        f"tags.verdict = 'GO' and tags.`checkpoint.sha256` = '{weights}' "
        f"and params.`gate.name` = '{gate.name}' and params.`precision.name` = 'fp32'"
    )
    with answering():
        runs = store.client.search_runs([store.experiment_id], wanted)
    return any(_counts(run.data.params, gate) for run in runs)


def _counts(params: Mapping[str, str], gate: Gate) -> bool:
    """Whether a run with these parameters was held against a gate, and for long enough."""
    limits = as_params({"gate": asdict(gate)})
    held_against = {key: value for key, value in params.items() if key.startswith("gate.")}
    return held_against == limits and float(params.get("task.duration_ps", 0)) >= NveTask.duration_ps


def _is_go(directory: Path, weights: str, gate: Gate) -> bool:
    """Whether a run's result says GO; one that can't be read says nothing."""
    try:
        result = RunResult.load(directory)
    except ResultError:
        return False
    return (
        result.verdict is not None
        and result.verdict.decision == "GO"
        and result.tags.get("checkpoint.sha256") == weights
        and result.config["precision"]["name"] == "fp32"
        and _counts(as_params(result.config), gate)
    )


def directory_of(store: Store | None, key: str, run: str) -> Path:
    """Where a run, named by its directory or its MLflow id, left its files.

    Args:
        store: to look the id up in.
        key: of the configuration that names the run.
        run: directory or id.

    Raises:
        ConfigError: there is no such run, or it was on another machine.
    """
    named = expanded(run)
    if named.is_dir():
        return named.resolve()
    if store is None:
        raise ConfigError(f"{key}={run} is not a directory, and tracking=offline knows no runs by their id")
    from mlflow.exceptions import MlflowException

    try:
        directory = store.client.get_run(run).data.tags.get(DIRECTORY_TAG)
    except MlflowException as error:
        raise ConfigError(f"{key}={run} is neither a directory nor an MLflow run: {first_line(error)}") from error
    if directory is None or not Path(directory).is_dir():
        raise ConfigError(f"{key}={run}: its directory, {directory}, is not on this machine")
    return Path(directory)
