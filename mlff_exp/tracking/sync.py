"""Upload results to a store later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import groupby
from pathlib import Path

from mlff_exp.common import progress_bar
from mlff_exp.config import Tracking
from mlff_exp.results import RESULT_FILE, ResultError
from mlff_exp.tracking.address import is_in_store
from mlff_exp.tracking.faults import first_line, say_on_stderr
from mlff_exp.tracking.markers import is_uploaded, uploaded_ids
from mlff_exp.tracking.recovery import open_store
from mlff_exp.tracking.store import Store, store_answers
from mlff_exp.tracking.sweeps import SWEEP_FILE, end_sweep_late, sweep_for_upload
from mlff_exp.tracking.upload import log_run


class StoreLostError(RuntimeError):
    """The store stopped answering during an upload; the message says how."""


def sync_runs(root: Path, where: Tracking, failed: Callable[[str], None] = say_on_stderr) -> list[str]:
    """Upload every finished run below ``root`` that is not in the store yet; return the new run ids.

    The jobs of one sweep become children of one parent run. A sweep whose final status its store does not know is
    ended. Directories that can't be uploaded are reported, and the others are still uploaded.

    Args:
        root: directory of a run or a sweep, or any directory above them.
        where: the store.
        failed: called with a line for each run or sweep that can't be uploaded.

    Raises:
        ConfigError: the store can't be opened.
        StoreLostError: it stopped answering.
        OSError: the disk is full.
    """
    from mlflow.exceptions import MlflowException

    try:
        return _sync(root, where, failed)
    except MlflowException as error:
        raise StoreLostError(first_line(error)) from error


def _sync(root: Path, where: Tracking, failed: Callable[[str], None]) -> list[str]:
    finished = [path.parent for path in sorted(root.rglob(RESULT_FILE)) if not is_in_store(path)]
    # Opening the store uploads runs whose process ended early; they count as well.
    before = {directory: uploaded_ids(directory) for directory in finished}
    store = open_store(where)
    assert store is not None, "sync needs a store to upload to"
    waiting = [directory for directory in finished if not is_uploaded(store, directory)]
    recovered = {directory for directory in finished if uploaded_ids(directory) != before[directory]}
    uploaded = [uploaded_ids(directory)[-1] for directory in finished if directory in recovered]
    with progress_bar(total=len(waiting), desc="runs", unit="run") as bar:
        for above, directories in groupby(waiting, key=lambda directory: directory.parent):
            with _failing(store, above, failed), _parent(store, above) as parent:
                for directory in directories:
                    with _failing(store, directory, failed):
                        uploaded.append(log_run(store, directory, parent))
                    bar.update()
    for path in sorted(root.rglob(SWEEP_FILE)):
        if is_in_store(path):
            continue
        with _failing(store, path.parent, failed):
            end_sweep_late(store, path.parent)
    return uploaded


def _parent(store: Store, above: Path) -> AbstractContextManager[str | None]:
    """Yield the parent run of the runs in a directory; None if the directory is no sweep's."""
    is_sweep = (above / SWEEP_FILE).is_file()
    return sweep_for_upload(store, above) if is_sweep else nullcontext()


@contextmanager
def _failing(store: Store, directory: Path, failed: Callable[[str], None]) -> Iterator[None]:
    """Report what is wrong with one directory; raise instead if the store does not answer."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except ResultError as error:
        failed(str(error))
    except MlflowException as error:
        if not store_answers(store):
            raise
        failed(f"{directory}: MLflow refuses it: {first_line(error)}")
