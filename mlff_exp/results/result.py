"""`RunResult`, the result of a run, written as ``result.json`` in the run's directory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from mlff_exp.common import atomic_write, read_json, typed_value
from mlff_exp.results.checks import check_environment, refuse_impossible, refuse_non_finite
from mlff_exp.results.earlier import SCHEMA, needed_keys, upgrade
from mlff_exp.results.failure import Failure
from mlff_exp.results.gate import Conditions
from mlff_exp.results.metrics import NON_CONSERVATIVE, find_metric
from mlff_exp.results.naming import RunKey, make_run_key
from mlff_exp.results.recorded_config import check_recorded, refuse_missing
from mlff_exp.results.verdict import Verdict

RESULT_FILE = "result.json"
DIGEST = "sha256"  # key of the file: digest of all its other values
STATE_FILE = "state.npz"  # state of an unfinished run that can be resumed
NOT_WRITTEN = "files.not_written"  # tag: which figures and tables are missing, and why
NOT_COMPUTED = "metrics.not_computed"  # tag: which metrics of other packages are missing, and why
STRESS_LEFT_OUT = "stress.left_out"  # tag: why no stress was computed of systems that have one
FORCES_TAG = "forces"  # tag of forces that no engine of ours took as a gradient: what was found about them
USUAL_TIMESTEP = "timestep.usual_fs"  # tag of dynamics: the usual timestep of the systems that moved, fs
USUAL_TEMPERATURE = "temperature.usual_k"  # likewise the usual temperature, K
EARLIER = Conditions(0.5, 300.0)  # usual for all systems in versions that did not record it
CONSERVATIVE = "the gradient of the energy"


Status = Literal["FINISHED", "FAILED", "KILLED", "SKIPPED"]


class ResultError(ValueError):
    """A file that is no result, or one of another version; the message names it."""


@dataclass(frozen=True)
class Timing:
    """Raw samples of one thing that was timed; statistics are derived from them (`measure/timing.py`).

    Attributes:
        values_ms: one per call, after the warm-up, in the order of measurement.
        warmup_ms: one per call of the warm-up.
        first_call_s: the very first call, compiling and capturing included.
        blocks: how many consecutive values belong to each block of the alternation.
        turns: when each block was measured: its number among the blocks of all alternating candidates.
        wall_ms: what the host waited for each call; the same as ``values_ms`` where that is the clock.
    """

    values_ms: tuple[float, ...]
    warmup_ms: tuple[float, ...]
    first_call_s: float
    blocks: tuple[int, ...]
    wall_ms: tuple[float, ...] = ()
    turns: tuple[int, ...] = ()


@dataclass(frozen=True)
class RunResult:
    """Everything a task measured.

    Attributes:
        config: the resolved configuration.
        status: FINISHED whatever the verdict; FAILED, KILLED and SKIPPED have a ``failure``.
        metrics: finite numbers by the names of the metric table; one that does not apply is absent.
        series: (step, value) pairs by name.
        timing: raw samples by what was timed.
        environment: where it ran.
        artifacts: files in the run's directory.
        verdict: of a gate, or None.
        tags: words worth filtering by.
        failure: or None.
        duration_s: of the run's process, or None if it had none.
    """

    config: Mapping[str, Any]
    status: Status = "FINISHED"
    metrics: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    timing: Mapping[str, Timing] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Sequence[str] = ()
    verdict: Verdict | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    failure: Failure | None = None
    duration_s: float | None = None

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise ValueError(f"status {self.status!r} is not one of {', '.join(get_args(Status))}")
        if (self.status == "FINISHED") != (self.failure is None):
            raise ValueError(f"a {self.status} run must {'not ' * (self.status == 'FINISHED')}have a failure")
        for name in self.artifacts:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"artifact {name!r} is not in the run's directory")
        refuse_non_finite(self.metrics)
        for name, points in self.series.items():
            for step, value in points:
                refuse_non_finite({name: value}, f" at step {step}")

    @property
    def trusted(self) -> bool:
        """Whether nothing is known to have disturbed the timing."""
        return self.tags.get("timing.trust", "ok") == "ok"

    @property
    def easier_than_usual(self) -> list[str]:
        """What made dynamics easier than usual for its systems, in words; empty if nothing did."""
        task = self.config["task"]
        if "timestep_fs" not in task:
            return []
        try:
            ran = Conditions(float(task["timestep_fs"]), float(task.get("temperature_k", EARLIER.temperature_k)))
            usual = Conditions(
                float(self.tags.get(USUAL_TIMESTEP, EARLIER.timestep_fs)),
                float(self.tags.get(USUAL_TEMPERATURE, EARLIER.temperature_k)),
            )
        except (TypeError, ValueError):
            return ["under conditions that can't be read"]
        return ran.easier_than(usual)

    @property
    def non_conservative(self) -> bool:
        """Whether a test has found that the forces are not the gradient of the energy."""
        missed = [] if self.verdict is None else [each for each in self.verdict.criteria if each.held is False]
        known = [find_metric(criterion.metric) for criterion in missed]
        by_verdict = any(metric is not None and metric.fault == NON_CONSERVATIVE for metric in known)
        return by_verdict or self.tags.get(FORCES_TAG, "").startswith(NON_CONSERVATIVE)

    @property
    def key(self) -> RunKey:
        """The identity of the run."""
        return make_run_key(self.config)

    def save(self, directory: Path) -> Path:
        """Write ``result.json`` atomically, and return its path."""
        path = directory / RESULT_FILE
        # The key is in the file for other programs; this one makes it from the configuration.
        key = {"key": dataclasses.asdict(self.key)} if "task" in self.config else {}
        values = {"schema": SCHEMA, **key, **dataclasses.asdict(self)}
        plain = json.loads(json.dumps(values, allow_nan=False))
        whole = {DIGEST: _digest(plain), **plain}
        atomic_write(path, json.dumps(whole, allow_nan=False, ensure_ascii=False, indent=1))
        return path

    @staticmethod
    def load(directory: Path) -> RunResult:
        """Read a result that `save` wrote, also one of an earlier version.

        Raises:
            ResultError: the file is damaged or of another version. The message names it.
        """
        path = directory / RESULT_FILE
        try:
            values, key = _undamaged(read_json(path)), None
            if isinstance(values, dict):
                values = {name: value for name, value in values.items() if name != "schema"}
                recorded = values.pop("key", None)
                key = None if recorded is None else typed_value(RunKey, recorded, "key")
            result: RunResult = typed_value(RunResult, values)
            refuse_impossible(result.metrics, result.timing)
            check_environment(result.environment)
            if "task" in result.config:
                check_recorded(result.config, key)
                if key is None:
                    refuse_missing(result.config, needed_keys(result.config))
                else:
                    _check_key(key, result.key)
            return result
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ResultError(f"{path} is not a result of this version: {error}") from error


def _undamaged(values: Any) -> Any:
    """Return the values of a file in the form of this version, without their digest.

    Raises:
        ValueError: the file is of another version, or the digest is that of other values, because a digit was changed
            on the disk, for example.
    """
    if not isinstance(values, dict) or DIGEST not in values:  # an earlier version wrote it
        return upgrade(values)
    rest = {name: value for name, value in values.items() if name != DIGEST}
    digest, upgraded = _digest(rest), upgrade(rest)
    if values[DIGEST] != digest:
        raise ValueError(f"its {DIGEST} is that of other values: the file was damaged or changed after the run")
    return upgraded


def _digest(values: Any) -> str:
    """Return the SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _check_key(recorded: RunKey, made: RunKey) -> None:
    for name, value in dataclasses.asdict(made).items():
        if (other := getattr(recorded, name)) != value:
            raise ValueError(f"key.{name}={other!r} contradicts config, by which it is {value!r}")
