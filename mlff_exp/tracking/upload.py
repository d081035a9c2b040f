"""Upload a finished run: parameters, metrics, inputs, tags and artifacts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mlff_exp.common import interrupts_postponed, shell_command
from mlff_exp.results import RESULT_FILE, ProgressPoint, ResultError
from mlff_exp.tracking.describe import Description, Source, Weights, describe, read_progress
from mlff_exp.tracking.faults import disk_errors, first_line, is_permanent, say_on_stderr
from mlff_exp.tracking.files import own_file
from mlff_exp.tracking.heartbeat import FAILURE_TAGS, KEY_TAG, heartbeat_tags
from mlff_exp.tracking.limits import MAX_TAG, shorten, valid_key
from mlff_exp.tracking.markers import (
    OPENED_FILE,
    OpenedRun,
    belongs_to_directory,
    find_run,
    lock_directory,
    new_key,
    note_uploaded,
    read_opened,
    uploaded_ids,
    write_opened,
)
from mlff_exp.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


T = TypeVar("T")
CONFIG_FILE = "config.yaml"
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100
# A server accepts requests of a million bytes, and a character may take six.
BYTES_PER_CALL = 500_000
INPUT_ATTEMPTS = 4


@interrupts_postponed()  # otherwise the MLflow run would stay open
@disk_errors()
def log_run(store: Store, directory: Path, parent_id: str | None = None) -> str:
    """Upload a finished run's directory, once to each store; return the id of its MLflow run.

    Args:
        store: the store to upload to.
        directory: directory of the run.
        parent_id: id of its sweep's run.

    Raises:
        ResultError: the directory has no valid result, or another process is uploading it for too long.
        MlflowException: the store does not answer, or refuses the run.
        OSError: the disk is full.
    """
    with lock_directory(directory):
        there = next((run_id for run_id in uploaded_ids(directory) if find_run(store, run_id) is not None), None)
        if there is not None:
            return there
        described = describe(directory)
        run, opened = _opened(store, directory)
        left = read_progress(directory, opened.position)  # read before a run is made for what is damaged
        if run is None:
            opened = open_run(store, described.name, directory, parent_id)
            run = store.client.get_run(opened.run_id)
        _upload(store, run, directory, described, left)
        note_uploaded(directory, opened.run_id)
        (directory / OPENED_FILE).unlink(missing_ok=True)
        return opened.run_id


def open_run(
    store: Store, name: str, directory: Path, parent_id: str | None = None, tags: Mapping[str, str] | None = None
) -> OpenedRun:
    """Make an MLflow run for a directory, and record that there: the next upload completes the same run."""
    parent = {} if parent_id is None else {"mlflow.parentRunId": parent_id}
    key, key_hash = new_key()
    run = store.client.create_run(
        store.experiment_id,
        run_name=name,
        tags={**(tags or {}), **heartbeat_tags(directory), KEY_TAG: key_hash, **parent},
    )
    opened = OpenedRun(str(run.info.run_id), key)
    write_opened(directory, opened)
    return opened


def _opened(store: Store, directory: Path) -> tuple[Run | None, OpenedRun]:
    """Return the MLflow run that was opened for a directory, if it is in this store and belongs to the directory."""
    opened = read_opened(directory)
    run = None if opened is None else find_run(store, opened.run_id)
    if opened is None or run is None or not belongs_to_directory(run, directory):
        return None, OpenedRun("", "")
    return run, opened


def _upload(store: Store, run: Run, directory: Path, described: Description, left: list[ProgressPoint] | None) -> None:
    client, run_id = store.client, str(run.info.run_id)
    for name, value in described.tags.items():
        client.set_tag(run_id, name, value)
    # A run that was marked as dead may have finished after all.
    delete_tags(client, run, [name for name in FAILURE_TAGS if name not in described.tags])
    _log_params(client, run, described.params)
    n_metrics = 1 if left is not None else len(described.metrics)  # the series are in the progress as well
    log_points(client, run_id, [*described.metrics[:n_metrics], *(left or [])])
    _log_inputs(store, run_id, described.source, described.weights)
    for file in (RESULT_FILE, CONFIG_FILE, *described.artifacts):
        log_file(client, run_id, directory, file)
    client.set_terminated(run_id, status=described.status)


def delete_tags(client: MlflowClient, run: Run, tags: Iterable[str]) -> None:
    """Delete tags of a run, if it has them."""
    for name in tags:
        if name in run.data.tags:
            client.delete_tag(run.info.run_id, name)


def log_file(client: MlflowClient, run_id: str, directory: Path, name: object) -> None:
    """Upload a file that is directly in a directory; print a message for any other."""
    try:
        path = own_file(directory, name)
    except ResultError as error:
        say_on_stderr(f"not in MLflow: {error}")
        return
    if path is not None:
        client.log_artifact(run_id, str(path))


def record_run(store: Store, directory: Path, parent_id: str | None = None) -> None:
    """Upload a run as `log_run` does; if that fails, the result stays on disk, and a message says what to do.

    Raises:
        OSError: the disk is full.
    """
    from mlflow.exceptions import MlflowException

    try:
        log_run(store, directory, parent_id)
    except MlflowException as error:
        how = "MLflow refuses this run" if is_permanent(error) else "not in MLflow yet"
        say_on_stderr(f"{how}: {first_line(error)}", f"later: {shell_command('mlff-exp-sync', directory)}")
    except ResultError as error:
        say_on_stderr(f"not in MLflow: {error}")


def set_run_tag(store: Store, run_id: str, name: str, value: str) -> None:
    """Set a tag of a run; print a message if the store does not answer.

    Raises:
        OSError: the disk is full.
    """
    from mlflow.exceptions import MlflowException

    try:
        with disk_errors():
            store.client.set_tag(run_id, valid_key(name), shorten(value, MAX_TAG))
    except MlflowException as error:
        say_on_stderr(f"not in MLflow: {name}={value}: {first_line(error)}")


def _log_params(client: MlflowClient, run: Run, params: Mapping[str, str]) -> None:
    """Log new parameters; MLflow can't change one that exists."""
    from mlflow.entities import Param

    there = run.data.params
    for name, value in params.items():
        if there.get(name, value) != value:
            say_on_stderr(
                f"run {run.info.run_id}: {name} stays {there[name]!r} in MLflow, which changes no parameter: {value!r}"
            )
    new = [Param(name, value) for name, value in params.items() if name not in there]
    for some in _batches(new, PARAMS_PER_CALL):
        client.log_batch(run.info.run_id, params=some)


def log_points(client: MlflowClient, run_id: str, records: list[ProgressPoint]) -> None:
    """Upload metrics; points that an interrupted upload has sent before are not doubled, as their times are equal."""
    from mlflow.entities import Metric

    metrics = [
        Metric(name, value, record.time_ms, record.step) for record in records for name, value in record.metrics.items()
    ]
    for some in _batches(metrics, METRICS_PER_CALL):
        client.log_batch(run_id, metrics=some)


def _batches(entities: list[T], n_most: int) -> Iterator[list[T]]:
    """Yield the entities in groups that fit into a request."""
    batch: list[T] = []
    n_bytes = 0
    for entity in entities:
        size = len(json.dumps(vars(entity)))
        if batch and (len(batch) == n_most or n_bytes + size > BYTES_PER_CALL):
            yield batch
            batch, n_bytes = [], 0
        batch.append(entity)
        n_bytes += size
    if batch:
        yield batch


def _log_inputs(store: Store, run_id: str, source: Source | None, weights: Weights | None) -> None:
    """Log the measured set as a dataset, and the weights as a logged model with the verdicts on them."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput
    from mlflow.exceptions import MlflowException

    if source is None:
        return
    models = []
    if weights is not None:
        model_id = _logged_model(store, weights)
        models.append(LoggedModelInput(model_id))
        if weights.verdict:
            store.client.set_logged_model_tags(model_id, dict(weights.verdict))
    dataset = Dataset(name=source.name, digest=source.digest, source_type="mlff_exp", source=source.text)
    inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", source.task)])]
    for attempt in range(INPUT_ATTEMPTS):
        try:
            store.client.log_inputs(run_id, inputs, models)
        except MlflowException:
            # MLflow searches the dataset and then makes it; another process may have made it in between.
            if attempt == INPUT_ATTEMPTS - 1:
                raise
        else:
            return


def _logged_model(store: Store, weights: Weights) -> str:
    """Return the id of the logged model with these weights; make it if there is none."""
    found = store.client.search_logged_models([store.experiment_id], filter_string=f"name = '{weights.name}'")
    # The oldest one, in case two processes made one at the same time.
    logged = min(found, key=lambda model: model.creation_timestamp, default=None)
    if logged is None:
        logged = store.client.create_logged_model(
            store.experiment_id,
            name=weights.name,
            tags={"checkpoint.sha256": weights.sha256},
            model_type="force field",
        )
    if logged.status != "READY":  # it is new, or its process ended before this call
        store.client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)
