"""Describe a result for MLflow: names, parameters, metrics, tags and inputs, each within MLflow's limits."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlff_exp.config import flatten
from mlff_exp.results import (
    PROGRESS_FILE,
    RESULT_FILE,
    Progress,
    ProgressPoint,
    ResultError,
    RunResult,
    label,
    model_word,
    system_name,
)
from mlff_exp.tracking.faults import say_on_stderr
from mlff_exp.tracking.files import own_file
from mlff_exp.tracking.heartbeat import (
    DIRECTORY_TAG,
    FAILURE_TAGS,
    HEARTBEAT_TAG,
    HOST_TAG,
    KEY_TAG,
    PID_TAG,
    STATUS_TAG,
)
from mlff_exp.tracking.limits import (
    INT64,
    MAX_DATASET_NAME,
    MAX_PARAM,
    MAX_RUN_NAME,
    MAX_SOURCE,
    MAX_TAG,
    model_name,
    shorten,
    valid_key,
)

# Tags that the tags of a result can't set.
OWN_TAGS = (DIRECTORY_TAG, HEARTBEAT_TAG, HOST_TAG, KEY_TAG, PID_TAG, STATUS_TAG, *FAILURE_TAGS, "sweep")


@dataclass(frozen=True)
class Weights:
    """Weights of a model, with the verdict on them, if there is one."""

    sha256: str
    name: str
    verdict: Mapping[str, str]


@dataclass(frozen=True)
class Source:
    """The labelled set or the system that a run measured."""

    name: str
    digest: str
    text: str
    task: str


@dataclass(frozen=True)
class Description:
    """Everything that MLflow stores of a result, except files and progress."""

    name: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: list[ProgressPoint]
    source: Source | None
    weights: Weights | None
    artifacts: tuple[object, ...]


def describe(directory: Path) -> Description:
    """Read the result in a directory and describe it.

    Raises:
        ResultError: there is no result, or it is damaged, of another version or a link. The message names the file.
    """
    path = directory / RESULT_FILE
    if own_file(directory, RESULT_FILE) is None:
        raise ResultError(f"{path} is not there")
    try:
        result = RunResult.load(directory)
        return _described(result, directory, int(path.stat().st_mtime * 1000))
    except ResultError:
        raise
    except (AttributeError, LookupError, OSError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise ResultError(f"{path} is not a result of this version: {error!r}") from error


def read_progress(directory: Path, position: int) -> list[ProgressPoint] | None:
    """Return the points of the progress file from a position on; None if there is no such file.

    Raises:
        ResultError: the file is damaged, or a link.
    """
    if own_file(directory, PROGRESS_FILE) is None:
        return None
    found, file = list[ProgressPoint](), Progress(directory)
    try:
        # A long file is read in parts.
        while (part := file.read(position))[1] > position:
            found += [valid_point(record) for record in part[0]]
            position = part[1]
    except (AttributeError, OSError, OverflowError, RecursionError, TypeError) as error:
        raise ResultError(f"{directory / PROGRESS_FILE} is damaged: {error!r}") from error
    return found


def _described(result: RunResult, directory: Path, ended: int) -> Description:
    source, weights = _inputs(result)
    series = [
        ProgressPoint(step, {name: value}, ended) for name, points in result.series.items() for step, value in points
    ]
    tags = {
        **_tags(result),
        "mlflow.note.content": _note(result),
        STATUS_TAG: result.status,
        DIRECTORY_TAG: str(directory.resolve()),
    }
    return Description(
        name=run_name(result.config),
        status="KILLED" if result.status == "SKIPPED" else result.status,
        tags={valid_key(name): shorten(str(value), MAX_TAG) for name, value in tags.items()},
        params=as_params(result.config),
        metrics=[valid_point(ProgressPoint(0, result.metrics, ended)), *map(valid_point, series)],
        source=source,
        weights=weights,
        artifacts=tuple(result.artifacts),
    )


def run_name(config: Mapping[str, Any]) -> str:
    """Return the name of a run in MLflow."""
    return shorten(label(config), MAX_RUN_NAME)


def as_params(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a configuration as MLflow's parameters; a value that is too long is cut."""
    return {valid_key(str(name)): value[:MAX_PARAM] for name, value in flatten(config).items()}


def valid_point(record: ProgressPoint) -> ProgressPoint:
    """Return metrics of one step under names that MLflow accepts; print those that its database can't store."""
    metrics = {}
    for name, value in record.metrics.items():
        if record.step not in INT64 or record.time_ms not in INT64 or record.time_ms < 0:
            say_on_stderr(f"not in MLflow: {name} at step {record.step}: beyond 64 bits")
        elif not math.isfinite(value):
            say_on_stderr(f"not in MLflow: {name} at step {record.step} is {value}")
        else:
            metrics[valid_key(name)] = float(value)
    return ProgressPoint(int(record.step), metrics, int(record.time_ms))


def _inputs(result: RunResult) -> tuple[Source | None, Weights | None]:
    """Return the source of a result and its weights, which carry verdicts by gate, system and precision."""
    config, sha256 = result.config, result.tags.get("checkpoint.sha256")
    if result.failure is not None or "model" not in config:  # it evaluated no force field
        return None, None
    if "dataset" in config["task"]:
        name, source = config["task"]["dataset"], {"sha256": result.tags.get("dataset.sha256", "")}
    elif (systems := config["task"].get("systems")) or "system" in config:
        name = ", ".join(systems or [system_name(config)])
        source = {"systems": systems} if systems else config["system"]
    else:
        return None, None
    text = json.dumps(source, sort_keys=True)
    digest = hashlib.sha256(f"{name} {text}".encode()).hexdigest()[:8]
    described = Source(shorten(str(name) or "_", MAX_DATASET_NAME), digest, text[:MAX_SOURCE], config["task"]["name"])
    if sha256 is None:
        return described, None
    verdict = {}
    if result.verdict is not None:
        where = f"verdict.{result.verdict.gate}.{name.replace(', ', '+')}.{config['precision']['name']}"
        verdict = {valid_key(where): result.verdict.decision}
    named = model_word(config["model"])
    if "checkpoint" in config["model"]:
        named = named.removesuffix(Path(named).suffix)
    model = model_name(f"{shorten(named, 200)}-{sha256[:12]}")
    return described, Weights(shorten(sha256, MAX_TAG), model, verdict)


def _tags(result: RunResult) -> dict[str, str]:
    task = str(result.config["task"]["name"])
    # A result can't set MLflow's own tags, such as the user and the parent run.
    free = {
        name: value for name, value in result.tags.items() if name not in OWN_TAGS and not name.startswith("mlflow.")
    }
    tags = {**free, "task": task}
    if (decision := result.config.get("sweep", {}).get("gate_decision")) is not None:
        tags["gate.decision"] = decision
    if result.verdict is not None:
        tags["verdict"] = result.verdict.decision
        if (duration_ps := result.config["task"].get("duration_ps")) is not None:
            tags["verdict.duration_ps"] = f"{duration_ps:g}"
        tags["verdict.reasons"] = "; ".join(result.verdict.reasons)
    if result.failure is not None:
        tags["failure.kind"] = result.failure.kind
        tags["failure.message"] = result.failure.message
    if "git_commit" in result.environment:
        tags["mlflow.source.git.commit"] = result.environment["git_commit"]
        tags["git.dirty"] = str(bool(result.environment["git_diff"])).lower()
    return tags


def _note(result: RunResult) -> str:
    lines = [f"**{label(result.config)}**", ""]
    if result.failure is not None:
        lines += [f"{result.status}: {result.failure.kind}: {result.failure.message}", ""]
    if result.verdict is not None:
        lines += [f"Gate {result.verdict.gate}: **{result.verdict.decision}**", ""]
        # A table right below a list would be part of its last item.
        lines += [*(f"- {reason}" for reason in result.verdict.reasons), ""]
    if result.metrics:
        lines += ["| metric | value |", "| --- | --- |"]
    lines += [f"| {name} | {value:.6g} |" for name, value in result.metrics.items()]
    return "\n".join(lines)
