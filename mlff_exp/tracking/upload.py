"""Upload a finished run: parameters, metrics, inputs, tags and artifacts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlff_exp.config import flatten
from mlff_exp.disk import write_whole
from mlff_exp.result import (
    PROGRESS_FILE,
    RESULT_FILE,
    Progress,
    Record,
    RunResult,
    label,
    system_name,
)
from mlff_exp.tracking.life import DIRECTORY_TAG, signs_of_life
from mlff_exp.tracking.store import Store, disk_errors, say

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Written into a run's directory once its MLflow run is complete, so that it is uploaded once.
UPLOADED_FILE = "mlflow_run_id"
# Until then: the MLflow run that was opened for it, and how much of its progress is there.
OPENED_FILE = "mlflow_opened.json"
CONFIG_FILE = "config.yaml"
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100
INPUT_ATTEMPTS = 4
MAX_PARAM, MAX_TAG = 6000, 5000


@disk_errors()
def log_run(store: Store, directory: Path, parent_id: str | None = None) -> str:
    """Upload a finished run's directory, once; returns the id of its MLflow run.

    Args:
        store: where to.
        directory: of the run.
        parent_id: of its sweep.

    Raises:
        ResultError: the directory holds no valid result.
        OSError: the disk is full.
    """
    marker = directory / UPLOADED_FILE
    if marker.is_file():
        return marker.read_text().strip()
    result = RunResult.load(directory)
    client = store.client
    run_id, position = opened(store, directory)
    if run_id is None:
        run_id = open_run(store, result.config, directory, parent_id)
        # Should this be interrupted, the next attempt completes the same run.
        note_opened(directory, run_id, 0)
    tags = {
        "mlflow.note.content": _note(result),
        "status": result.status,
        DIRECTORY_TAG: str(directory.resolve()),
        **_tags(result),
    }
    for name, value in tags.items():
        client.set_tag(run_id, name, value)
    _log_params(client, run_id, result.config)
    _log_metrics(client, run_id, result, directory, position)
    _log_inputs(store, run_id, result)
    for name in (RESULT_FILE, CONFIG_FILE, *result.artifacts):
        if (directory / name).is_file():
            client.log_artifact(run_id, str(directory / name))
    client.set_terminated(run_id, status="KILLED" if result.status == "SKIPPED" else result.status)
    write_whole(marker, run_id)
    (directory / OPENED_FILE).unlink(missing_ok=True)
    return run_id


def record(store: Store, directory: Path, parent_id: str | None = None) -> None:
    """`log_run` for a result that must not be lost with its server: it stays on disk, and a message says what to do.

    Raises:
        OSError: the disk is full.
    """
    from mlflow.exceptions import MlflowException

    try:
        log_run(store, directory, parent_id)
    except MlflowException as error:
        say(f"not in MLflow yet: {error}", f"later: mlff-exp-sync {directory}")


def set_tag(store: Store, run_id: str, name: str, value: str) -> None:
    """Put a word on a run; a store that can't be reached just now is told of in a message.

    Raises:
        OSError: the disk is full.
    """
    from mlflow.exceptions import MlflowException

    try:
        with disk_errors():
            store.client.set_tag(run_id, name, value[:MAX_TAG])
    except MlflowException as error:
        say(f"not in MLflow: {name}={value}: {error}")


@disk_errors()
def open_run(store: Store, config: Mapping[str, Any], directory: Path, parent_id: str | None) -> str:
    """Make the MLflow run of a run directory; returns its id."""
    parent = {} if parent_id is None else {"mlflow.parentRunId": parent_id}
    run = store.client.create_run(
        store.experiment_id, run_name=label(config), tags={**signs_of_life(directory), **parent}
    )
    return str(run.info.run_id)


def opened(store: Store, directory: Path) -> tuple[str | None, int]:
    """The MLflow run that was opened for a directory, if it is in this store, and how much progress it has."""
    from mlflow.exceptions import MlflowException

    run_id = opened_id(directory)
    if run_id is None:
        return None, 0
    try:
        store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None, 0
        raise
    return run_id, int(json.loads((directory / OPENED_FILE).read_text())["position"])


def note_opened(directory: Path, run_id: str, position: int) -> None:
    """Write down which MLflow run was opened for a directory, and how much of its progress is there."""
    write_whole(directory / OPENED_FILE, json.dumps({"run_id": run_id, "position": position}))


def opened_id(directory: Path) -> str | None:
    """Return the id of the MLflow run that was opened for a directory; None if there is none."""
    path = directory / OPENED_FILE
    return str(json.loads(path.read_text())["run_id"]) if path.is_file() else None


def _log_params(client: MlflowClient, run_id: str, config: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(key, value[:MAX_PARAM]) for key, value in flatten(config).items()]
    for start in range(0, len(params), PARAMS_PER_CALL):
        client.log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])


def _log_metrics(client: MlflowClient, run_id: str, result: RunResult, directory: Path, position: int) -> None:
    """Metrics, and the series: what is missing of the progress that the run wrote, or what it returned."""
    ended = int((directory / RESULT_FILE).stat().st_mtime * 1000)
    if (directory / PROGRESS_FILE).is_file():
        records, _ = Progress(directory).read(position)
    else:
        records = [
            Record(step, {name: value}, ended) for name, points in result.series.items() for step, value in points
        ]
    log_points(client, run_id, [Record(0, result.metrics, ended), *records])


def log_points(client: MlflowClient, run_id: str, records: list[Record]) -> None:
    """Points that are there already, from an upload that was cut short, are not doubled: their times are the same."""
    from mlflow.entities import Metric

    metrics = [
        Metric(name, value, record.time_ms, record.step) for record in records for name, value in record.metrics.items()
    ]
    for start in range(0, len(metrics), METRICS_PER_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_CALL])


def _log_inputs(store: Store, run_id: str, result: RunResult) -> None:
    """What was measured on: the labelled set or the system as a dataset, the weights as a logged model.

    The model carries the verdicts on its weights, by gate, system and precision.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput
    from mlflow.exceptions import MlflowException

    config, weights = result.config, result.tags.get("checkpoint.sha256")
    if result.failure is not None or config["task"]["name"] == "distill":
        return
    if config["task"]["name"] == "accuracy":
        name, source = config["task"]["dataset"], {"sha256": result.tags.get("dataset.sha256", "")}
    else:
        name, source = ", ".join(config["task"].get("systems") or [system_name(config)]), config["system"]
    text = json.dumps(source, sort_keys=True)
    digest = hashlib.sha256(f"{name} {text}".encode()).hexdigest()[:8]
    dataset = Dataset(name=name, digest=digest, source_type="mlff_exp", source=text)
    models = []
    if weights is not None:
        model_id = _logged_model(store, weights, config["model"])
        models.append(LoggedModelInput(model_id))
        if result.verdict is not None:
            where = f"verdict.{result.verdict.gate}.{name.replace(', ', '+')}.{config['precision']['name']}"
            store.client.set_logged_model_tags(model_id, {where: result.verdict.decision})
    inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", config["task"]["name"])])]
    for attempt in range(INPUT_ATTEMPTS):
        try:
            store.client.log_inputs(run_id, inputs, models)
        except MlflowException:
            # MLflow looks for the dataset and then makes it; another process may have been quicker.
            if attempt == INPUT_ATTEMPTS - 1:
                raise
        else:
            return


def _logged_model(store: Store, weights: str, model: Mapping[str, Any]) -> str:
    """The id of the logged model with these weights; made on first sight."""
    # MLflow refuses dots, quotes and some more in it.
    name = re.sub(r"[^\w-]", "_", f"{Path(model['checkpoint']).stem}-{weights[:12]}")
    found = store.client.search_logged_models([store.experiment_id], filter_string=f"name = '{name}'")
    # The oldest, should two processes have made one at the same moment.
    logged = min(found, key=lambda model: model.creation_timestamp, default=None)
    if logged is None:
        logged = store.client.create_logged_model(
            store.experiment_id, name=name, tags={"checkpoint.sha256": weights}, model_type="force field"
        )
    if logged.status != "READY":  # just made, or by a process that died before it could say so
        store.client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def _tags(result: RunResult) -> dict[str, str]:
    task = str(result.config["task"]["name"])
    tags = {"task": task, **result.tags}
    if task in ("inference", "accuracy"):
        tags["gate.decision"] = result.config["sweep"]["gate_decision"]
    if result.verdict is not None:
        tags["verdict"] = result.verdict.decision
        tags["verdict.reasons"] = "; ".join(result.verdict.reasons)
    if result.failure is not None:
        tags["failure.kind"] = result.failure.kind
        tags["failure.message"] = result.failure.message[:MAX_TAG]
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
