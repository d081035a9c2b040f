"""The parent run of a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlff_exp.disk import write_whole
from mlff_exp.tracking.life import heart, signs_of_life
from mlff_exp.tracking.store import Store, answering, disk_errors, say
from mlff_exp.tracking.upload import (
    MAX_TAG,
    UPLOADED_FILE,
)

SWEEP_FILE = "multirun.yaml"  # of a whole sweep: what was asked for


@contextmanager
def sweep(store: Store | None, name: str, directory: Path) -> Iterator[str | None]:
    """The parent run of a multirun; its jobs are children. Reports in ``directory`` become its artifacts.

    A directory that already has a parent run goes on with it.

    Raises:
        ConfigError: the store can't be reached at the start.
        OSError: the disk is full.
    """
    if store is None:
        yield None
        return
    with answering():
        run_id = open_sweep(store, name, directory)
    status = "FAILED"
    try:
        with heart(store, run_id):
            yield run_id
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        close_sweep(store, run_id, directory, status)


@disk_errors()
def open_sweep(store: Store, name: str, directory: Path) -> str:
    """Make the parent run of a sweep, or open again the one that its directory names; returns its id."""
    client, marker = store.client, directory / UPLOADED_FILE
    if marker.is_file():
        run_id = marker.read_text().strip()
        client.update_run(run_id, status="RUNNING")
        for tag, value in signs_of_life(directory).items():
            client.set_tag(run_id, tag, value)
    else:
        tags = {"sweep": name, **signs_of_life(directory)}
        run_id = str(client.create_run(store.experiment_id, run_name=name, tags=tags).info.run_id)
        write_whole(marker, run_id)
    return run_id


def close_sweep(store: Store, run_id: str, directory: Path, status: str) -> None:
    """Upload the reports of a sweep, and end its parent run."""
    from mlflow.exceptions import MlflowException

    try:
        with disk_errors():
            for path in sorted(directory.glob("report*")):
                store.client.log_artifact(run_id, str(path))
            table = directory / "report.md"
            if table.is_file():
                store.client.set_tag(run_id, "mlflow.note.content", table.read_text()[:MAX_TAG])
            store.client.set_terminated(run_id, status=status)
    except MlflowException as error:
        say(f"not in MLflow yet: the end of this sweep: {error}", f"later: mlff-exp-sync {directory}")
