"""What a run leaves behind: `RunResult`, written as ``result.json`` in the run's directory."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from mlff_exp.disk import write_whole
from mlff_exp.naming import label, system_name
from mlff_exp.recorded import what_runs
from mlff_exp.typed import MAX_BYTES, parsed, read_json, typed

RESULT_FILE = "result.json"
PROGRESS_FILE = "progress.jsonl"
STATE_FILE = "state.npz"  # of a run that has not finished and can go on
NOT_WRITTEN = "files.not_written"  # tag: which files for people are missing, and why

__all__ = ["label", "system_name"]  # from where they were before

Status = Literal["FINISHED", "FAILED", "KILLED", "SKIPPED"]


class ResultError(ValueError):
    """A file that is not a result, or not one of this version; the message names it."""


@dataclass(frozen=True)
class Timing:
    """Raw samples of one thing that was timed; statistics are derived from them (`timing.py`).

    Attributes:
        values_ms: one per call, after the warm-up, in the order of measurement.
        warmup_ms: one per call of the warm-up.
        first_call_s: the very first call, compiling and capturing included.
        blocks: how many consecutive values belong to each block of the alternation.
        turns: when each block was measured: its number among the blocks of all that were measured beside each other.
        wall_ms: what the host waited for each call; the same as ``values_ms`` where that is the clock.
    """

    values_ms: tuple[float, ...]
    warmup_ms: tuple[float, ...]
    first_call_s: float
    blocks: tuple[int, ...]
    wall_ms: tuple[float, ...] = ()
    turns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Criterion:
    """One line of a verdict: a metric, its limits and whether it held; value and ``held`` are None if not measured."""

    metric: str
    value: float | None
    min: float | None
    max: float | None
    held: bool | None


@dataclass(frozen=True)
class Verdict:
    """GO if every criterion held and nothing blew up."""

    decision: Literal["GO", "NO-GO"]
    gate: str
    criteria: tuple[Criterion, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """Why a run did not finish.

    Attributes:
        kind: exception's class name, or ``timeout``, ``killed``, ``interrupted``, ``terminated``, ``crash``,
            ``out_of_memory``, ``unavailable``.
        message: for people.
    """

    kind: str
    message: str


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
        _refuse_non_finite(self.metrics)
        for name, points in self.series.items():
            for step, value in points:
                _refuse_non_finite({name: value}, f" at step {step}")

    @property
    def trusted(self) -> bool:
        """Whether nothing is known to have disturbed its timing."""
        return self.tags.get("timing.trust", "ok") == "ok"

    def save(self, directory: Path) -> Path:
        """Write ``result.json``, whole or not at all."""
        path = directory / RESULT_FILE
        write_whole(path, json.dumps(dataclasses.asdict(self), allow_nan=False, ensure_ascii=False, indent=1))
        return path

    @staticmethod
    def load(directory: Path) -> RunResult:
        """Read what `save` wrote.

        Raises:
            ResultError: the file is damaged or of another version, naming it.
        """
        path = directory / RESULT_FILE
        try:
            result: RunResult = typed(RunResult, read_json(path))
            # What was recorded before of words that nothing took notice of.
            return dataclasses.replace(result, config=what_runs(result.config)) if "task" in result.config else result
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ResultError(f"{path} is not a result of this version: {error}") from error


@dataclass(frozen=True)
class Record:
    """Metrics of one step, and when they were measured, in milliseconds since 1970."""

    step: int
    metrics: Mapping[str, float]
    time_ms: int


class Progress:
    """Metrics of a run that is still going on, a line of JSON each; whoever watches the directory may read along."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / PROGRESS_FILE

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a step.

        Raises:
            ValueError: one of them is not finite, naming it.
        """
        _refuse_non_finite(metrics, f" at step {step}")
        with self._path.open("a", encoding="utf-8") as file:
            record = Record(step, metrics, int(time.time() * 1000))
            file.write(json.dumps(dataclasses.asdict(record), allow_nan=False) + "\n")

    def read(self, position: int) -> tuple[list[Record], int]:
        """What was written since a position in the file, and the position to go on from.

        Raises:
            ResultError: a line that is no record, naming the file.
        """
        if not self._path.is_file():
            return [], position
        with self._path.open("rb") as file:
            file.seek(position)
            text = file.read(MAX_BYTES)
        whole = text[: text.rfind(b"\n") + 1]  # the last line may still be written
        try:
            records = [typed(Record, parsed(line.decode())) for line in whole.splitlines()]
        except (ValueError, TypeError) as error:
            raise ResultError(f"{self._path} has a line that is no record of progress: {error}") from error
        return records, position + len(whole)


def _refuse_non_finite(metrics: Mapping[str, float], where: str = "") -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise ValueError(f"metric {name!r} is {value}{where}: leave out what does not apply")
