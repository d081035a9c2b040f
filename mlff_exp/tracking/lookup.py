"""Find a recorded verdict, or the directory of a recorded run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlff_exp.common import expand_home
from mlff_exp.config import ConfigError, Gate, flatten, new_option, old_options, shown
from mlff_exp.results import DECIDING_PS, RESULT_FILE, Conditions, ResultError, RunResult
from mlff_exp.tracking.describe import as_params as as_params
from mlff_exp.tracking.faults import first_line, store_must_answer
from mlff_exp.tracking.heartbeat import DIRECTORY_TAG
from mlff_exp.tracking.store import Store

MAX_DEPTH = 5


@dataclass(frozen=True)
class RequiredGo:
    """Conditions that a recorded GO must meet.

    Attributes:
        weights: their hash.
        gate: with these very limits.
        system: plain values of the configuration's ``system``; None for any.
        usual: the usual conditions of its dynamics; easier ones are not enough. None for any.
    """

    weights: str
    gate: Gate
    system: Mapping[str, Any] | None = None
    usual: Conditions | None = None

    @property
    def system_words(self) -> str:
        """Text of the system for messages."""
        return ", ".join(f"{key}={value}" for key, value in flatten(self.system or {}).items())

    def is_met_by(self, params: Mapping[str, str]) -> bool:
        """Return whether a run was judged by this gate, for long enough, with this system, as usual or harder."""
        held_against = {key: value for key, value in params.items() if key.startswith("gate.")}
        long_enough = float(params.get("task.duration_ps", 0)) >= DECIDING_PS
        ran = Conditions(*(float(params.get(f"task.{key}", 0)) for key in ("timestep_fs", "temperature_k")))
        usual = self.usual is None or not ran.easier_than(self.usual)
        same_gate = held_against == as_params({"gate": asdict(self.gate)})
        return same_gate and long_enough and usual and self._moved_in(params)

    def _moved_in(self, params: Mapping[str, str]) -> bool:
        """Return whether the run simulated the system, as its only system or as a molecule of ``task.systems``."""
        if self.system is None:
            return True
        several = re.findall(r"[\w-]+", params.get("task.systems", ""))
        if several:
            return set(self.system) == {"name"} and self.system["name"] in several
        moved = {key: value for key, value in params.items() if key.startswith("system.")}
        return moved == as_params({"system": self.system})


def find_go(store: Store | None, wanted: RequiredGo, roots: Iterable[Path]) -> bool:
    """Return whether a GO is recorded, in FP32 and for a trajectory that is long enough to decide.

    Args:
        store: to look in, or None to look at what runs left on disk.
        wanted: what it must be about.
        roots: directories below which runs leave theirs.

    Raises:
        ConfigError: the store can't be reached.
    """
    if store is None:
        found = {path.resolve(): path for root in roots for path in _result_directories(root)}
        return any(_is_go(directory, wanted) for directory in found)
    # The name of the gate is part of the query, because a store answers that fast. An earlier version had other names.
    names = [wanted.gate.name, *old_options("gate", wanted.gate.name)]
    queries = [
        f"tags.verdict = 'GO' and tags.`checkpoint.sha256` = '{wanted.weights}' "
        f"and params.`gate.name` = '{name}' and params.`precision.name` = 'fp32'"
        for name in names
    ]
    with store_must_answer():
        runs = [run for query in queries for run in store.client.search_runs([store.experiment_id], query)]
    recorded = [{**run.data.params, "gate.name": new_option("gate", run.data.params["gate.name"])} for run in runs]
    return any(wanted.is_met_by(params) for params in recorded)


def _result_directories(root: Path) -> Iterator[Path]:
    """Yield directories with a result, at most `MAX_DEPTH` levels below a root."""
    depth = len(root.parts)
    for name, below, files in os.walk(root):
        directory = Path(name)
        if RESULT_FILE in files:
            yield directory
        below[:] = [one for one in below if not one.startswith(".")] if len(directory.parts) - depth < MAX_DEPTH else []


def _is_go(directory: Path, wanted: RequiredGo) -> bool:
    """Return whether a run's result is a GO that meets the conditions; False if it can't be read."""
    try:
        result = RunResult.load(directory)
    except (ResultError, OSError):
        return False
    return (
        result.verdict is not None
        and result.verdict.decision == "GO"
        and result.tags.get("checkpoint.sha256") == wanted.weights
        and result.config["precision"]["name"] == "fp32"
        and wanted.is_met_by(as_params(result.config))
    )


def find_run_directory(store: Store | None, key: str, run: str) -> Path:
    """Return the directory of a run that is named by its directory or by its MLflow id.

    Args:
        store: to look the id up in.
        key: of the configuration that names the run.
        run: directory or id.

    Raises:
        ConfigError: there is no such run, or it was on another machine.
    """
    named = expand_home(run)
    try:
        if named.is_dir():
            return named.resolve()
    except OSError as error:
        raise ConfigError(f"{key}={shown(run)} can't be used: {error.strerror}") from error
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
