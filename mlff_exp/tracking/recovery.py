"""Open the store, and close the runs whose process has ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mlff_exp.config import Tracking
from mlff_exp.results import RESULT_FILE, FailureKind, ResultError
from mlff_exp.tracking.faults import first_line, is_permanent, say_on_stderr
from mlff_exp.tracking.heartbeat import DIRECTORY_TAG, FAILURE_TAGS, STATUS_TAG, is_alive
from mlff_exp.tracking.limits import MAX_TAG, shorten
from mlff_exp.tracking.local import open_local_store
from mlff_exp.tracking.markers import belongs_to_directory, read_opened, uploaded_ids
from mlff_exp.tracking.server import open_server_store
from mlff_exp.tracking.store import Store
from mlff_exp.tracking.sweeps import end_sweep_late
from mlff_exp.tracking.upload import log_run

if TYPE_CHECKING:
    from mlflow.entities import Run


def open_store(tracking: Tracking) -> Store | None:
    """Open the store, and make it on first use; None for ``tracking=offline``, which does not import MLflow.

    Runs whose process has ended without closing them are closed.

    Raises:
        ConfigError: there is no store, or it does not accept runs. The message says why.
    """
    if tracking.name == "offline":
        return None
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    store, running = open_server_store(tracking) if tracking.name == "server" else open_local_store(tracking)
    close_dead_runs(store, running)
    return store


def close_dead_runs(store: Store, running: list[Run]) -> None:
    """Close runs whose process has ended; a finished run that was not uploaded is uploaded.

    A run that can't be closed is reported, and the others are still closed.

    Args:
        store: the store of the runs.
        running: all runs that are RUNNING there.

    Raises:
        OSError: the disk is full.
    """
    from mlflow.exceptions import MlflowException

    for run in running:
        if is_alive(run):
            continue
        try:
            _close(store, run)
        except MlflowException as error:
            say_on_stderr(f"run {run.info.run_id} stays RUNNING in MLflow: {first_line(error)}")
            if not is_permanent(error):  # the store is busy or lost; the next start goes on
                return


def fail_replaced_run(store: Store, directory: Path) -> None:
    """Mark the MLflow run of an attempt as failed if it finished: its result was lost, and another attempt replaces it.

    Args:
        store: the store of the run.
        directory: directory of the attempt.
    """
    from mlflow.exceptions import MlflowException

    for run_id in uploaded_ids(directory):
        try:
            run = store.client.get_run(run_id)
        except MlflowException:  # it is a run of another store
            continue
        if run.data.tags.get(STATUS_TAG) == "FINISHED" and belongs_to_directory(run, directory):
            why = f"the {RESULT_FILE} of this run was damaged later, and another attempt replaces it"
            _end(store, run_id, "FAILED", FailureKind.REPLACED, why)


def _close(store: Store, run: Run) -> None:
    from mlflow.exceptions import MlflowException

    directory, why = Path(run.data.tags.get(DIRECTORY_TAG, "")), "the process ended without a word"
    try:
        opened = read_opened(directory)
        if opened is not None and opened.run_id == run.info.run_id and belongs_to_directory(run, directory):
            if end_sweep_late(store, directory):
                return
            if (directory / RESULT_FILE).is_file():
                log_run(store, directory)
                return
    except (ResultError, PermissionError, ValueError) as error:
        why = f"the end of run {run.info.run_id} can't be uploaded: {first_line(error)}"
        say_on_stderr(why)
    except MlflowException as error:
        if not is_permanent(error):
            raise
        why = f"MLflow refuses the end of run {run.info.run_id}: {first_line(error)}"
        say_on_stderr(why)
    _end(store, run.info.run_id, "KILLED", FailureKind.KILLED, why)


def _end(store: Store, run_id: str, status: str, kind: FailureKind, why: str) -> None:
    """End a run without its result."""
    for name, value in zip((STATUS_TAG, *FAILURE_TAGS), (status, kind.value, shorten(why, MAX_TAG)), strict=True):
        store.client.set_tag(run_id, name, value)
    store.client.set_terminated(run_id, status=status)
