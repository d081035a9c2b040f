"""The parent run of a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlff_exp.common import interrupts_postponed, shell_command
from mlff_exp.results import ResultError
from mlff_exp.tracking.faults import disk_errors, first_line, say_on_stderr, store_must_answer
from mlff_exp.tracking.files import read_own
from mlff_exp.tracking.heartbeat import FAILURE_TAGS, STATUS_TAG, heartbeat_tags, send_heartbeats
from mlff_exp.tracking.limits import MAX_RUN_NAME, MAX_TAG, shorten
from mlff_exp.tracking.markers import (
    OpenedRun,
    belongs_to_directory,
    find_run,
    lock_directory,
    note_uploaded,
    read_opened,
    uploaded_ids,
    write_opened,
)
from mlff_exp.tracking.store import Store
from mlff_exp.tracking.upload import delete_tags, log_file, open_run

if TYPE_CHECKING:
    from mlflow.entities import Run


SWEEP_FILE = "multirun.yaml"  # the configuration of a sweep, in its directory


@contextmanager
def sweep_run(store: Store | None, name: str, directory: Path) -> Iterator[str | None]:
    """Open the parent run of a sweep for the duration of the block; its jobs are children, its reports artifacts.

    If the directory already has a parent run in this store, that one is continued.

    Raises:
        ConfigError: the store does not answer at the start.
        OSError: the disk is full.
    """
    if store is None:
        yield None
        return
    status, run_id = "FAILED", None
    try:
        with interrupts_postponed(), store_must_answer():  # an interrupt here would leave an open run
            run_id = open_sweep(store, name, directory)
        with send_heartbeats(store, run_id):
            yield run_id
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if run_id is not None:
            with interrupts_postponed():
                _close(store, run_id, directory, status)


@disk_errors()
def open_sweep(store: Store, name: str, directory: Path) -> str:
    """Make the parent run of a sweep, or reopen the one that its directory names; return its id."""
    with lock_directory(directory):
        client, run = store.client, _parent(store, directory)
        if run is None:
            return _make(store, name, directory)
        run_id = str(run.info.run_id)
        client.update_run(run_id, status="RUNNING")
        for tag, value in heartbeat_tags(directory).items():
            client.set_tag(run_id, tag, value)
        # These tags are from an earlier attempt that was killed.
        delete_tags(client, run, (STATUS_TAG, *FAILURE_TAGS))
        _note_end(directory, run_id, "")
        return run_id


@contextmanager
def sweep_for_upload(store: Store, directory: Path) -> Iterator[str]:
    """Yield the parent run for late uploads of a sweep's runs; make one if this store has none, and end it afterwards.

    An existing parent run is not changed, except that a missing final status is set.
    """
    with disk_errors(), lock_directory(directory):
        run = _parent(store, directory)
        if run is None:
            run_id = _make(store, directory.name, directory)
            # If this is interrupted, the next start ends the run.
            _note_end(directory, run_id, "FINISHED")
        else:
            run_id = str(run.info.run_id)
    yield run_id
    end_sweep_late(store, directory)


@disk_errors()
def end_sweep_late(store: Store, directory: Path) -> bool:
    """Set the final status of a sweep whose store was lost before; return whether there was one to set."""
    opened = read_opened(directory)
    if opened is None or not opened.ended:
        return False
    run = _parent(store, directory)
    if run is None or run.info.run_id != opened.run_id:
        return False
    delete_tags(store.client, run, (STATUS_TAG, *FAILURE_TAGS))
    _end(store, opened.run_id, directory, opened.ended)
    return True


def _make(store: Store, name: str, directory: Path) -> str:
    opened = open_run(store, shorten(name, MAX_RUN_NAME), directory, tags={"sweep": name[:MAX_TAG]})
    note_uploaded(directory, opened.run_id)
    return opened.run_id


def _parent(store: Store, directory: Path) -> Run | None:
    """Return the parent run of a sweep's directory, if it has one in this store."""
    found = (find_run(store, run_id) for run_id in uploaded_ids(directory))
    return next((run for run in found if run is not None and belongs_to_directory(run, directory)), None)


def _close(store: Store, run_id: str, directory: Path, status: str) -> None:
    """Upload the reports of a sweep and end its parent run; note the status for `end_sweep_late` if that fails."""
    from mlflow.exceptions import MlflowException

    try:
        with disk_errors():
            _end(store, run_id, directory, status)
    except MlflowException as error:
        _note_end(directory, run_id, status)
        say_on_stderr(
            f"not in MLflow yet: the end of this sweep: {first_line(error)}",
            f"later: {shell_command('mlff-exp-sync', directory)}",
        )


def _end(store: Store, run_id: str, directory: Path, status: str) -> None:
    for path in sorted(directory.glob("report*")):
        log_file(store.client, run_id, directory, path.name)
    try:
        text = read_own(directory, "report.md")
    except ResultError:
        text = None  # it is not the report that was written
    if text is not None:
        store.client.set_tag(run_id, "mlflow.note.content", shorten(text, MAX_TAG))
    store.client.set_terminated(run_id, status=status)
    _note_end(directory, run_id, "")


def _note_end(directory: Path, run_id: str, status: str) -> None:
    """Record the final status of a sweep until its store knows it; an empty status means that it does."""
    opened = read_opened(directory)
    if opened is None or opened.run_id != run_id:
        opened = OpenedRun(run_id, "")
    if opened.ended != status:
        write_opened(directory, replace(opened, ended=status))
