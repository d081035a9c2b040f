"""Files in the directory of a run or a sweep that name its MLflow runs."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from mlff_exp.common import atomic_write
from mlff_exp.results import ResultError
from mlff_exp.tracking.files import own_file, read_own
from mlff_exp.tracking.heartbeat import DIRECTORY_TAG, KEY_TAG
from mlff_exp.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run


# The ids of complete MLflow runs, one line for each store, so that a directory is uploaded to each store once.
UPLOADED_FILE = "mlflow_run_id"
# Before that: the MLflow run that was opened for the directory, and how much progress was uploaded.
OPENED_FILE = "mlflow_opened.json"
LOCK_FILE = ".mlflow.lock"
LOCK_S = 60.0
RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class OpenedRun:
    """The MLflow run that was opened for a directory.

    Attributes:
        run_id: id in MLflow.
        key: stored only in this directory; the MLflow run has its hash.
        position: position in the progress file up to which it was uploaded.
        ended: final status of a sweep, if its store does not know it yet.
    """

    run_id: str
    key: str
    position: int = 0
    ended: str = ""


def new_key() -> tuple[str, str]:
    """Return a key for a directory, and its hash for the MLflow run; the key can't be computed from the hash."""
    key = secrets.token_hex(16)
    return key, _hash(key)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def read_opened(directory: Path) -> OpenedRun | None:
    """Return the MLflow run that was opened for a directory; None if there is none or the file is invalid."""
    try:
        values = json.loads(read_own(directory, OPENED_FILE) or "{}")
        opened = OpenedRun(values["run_id"], values.get("key", ""), values["position"], values.get("ended", ""))
    except (ResultError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    words = isinstance(opened.run_id, str) and isinstance(opened.key, str)
    if not words or not isinstance(opened.position, int) or opened.position < 0 or not RUN_ID.fullmatch(opened.run_id):
        return None
    return opened if opened.ended in ("", "FINISHED", "FAILED", "KILLED") else None


def write_opened(directory: Path, opened: OpenedRun) -> None:
    """Record which MLflow run was opened for a directory."""
    atomic_write(directory / OPENED_FILE, json.dumps(asdict(opened)))


def uploaded_ids(directory: Path) -> list[str]:
    """Return the ids of the complete MLflow runs of a directory, one for each store."""
    try:
        lines = (read_own(directory, UPLOADED_FILE) or "").split()
    except ResultError:
        return []
    return [line for line in lines if RUN_ID.fullmatch(line)]


def note_uploaded(directory: Path, run_id: str) -> None:
    """Record that a directory is complete in one more store."""
    atomic_write(directory / UPLOADED_FILE, "\n".join([*uploaded_ids(directory), run_id]))


def find_run(store: Store, run_id: str) -> Run | None:
    """Return a run; None if this store does not have it, or has deleted it."""
    from mlflow.exceptions import MlflowException

    try:
        run = store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return None if run.info.lifecycle_stage == "deleted" else run


def is_uploaded(store: Store, directory: Path) -> bool:
    """Return whether a run's directory is complete in this store."""
    return any(find_run(store, run_id) is not None for run_id in uploaded_ids(directory))


def belongs_to_directory(run: Run, directory: Path) -> bool:
    """Return whether a run was opened for a directory: the directory has its key, or the run names the directory.

    A file may name any run. Without this check, uploading a foreign directory could overwrite another user's run.
    """
    opened = read_opened(directory)
    tags: dict[str, str] = run.data.tags
    has_key = opened is not None and opened.run_id == run.info.run_id and tags.get(KEY_TAG) == _hash(opened.key)
    return has_key or tags.get(DIRECTORY_TAG) == str(directory.resolve())


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Keep other processes from uploading the same directory.

    Raises:
        ResultError: another process has been uploading it for too long, the file of the lock is a link, or the name of
            the directory is no text, which MLflow stores.
    """
    try:
        str(directory.resolve()).encode()
    except UnicodeEncodeError:
        raise ResultError(f"{str(directory)!a}: the name of this directory is not UTF-8: rename it") from None
    own_file(directory, LOCK_FILE)
    lock = FileLock(directory / LOCK_FILE, timeout=LOCK_S)
    try:
        lock.acquire()
    except Timeout:
        raise ResultError(f"{directory}: another process has been uploading it for {LOCK_S:g} s") from None
    try:
        yield
    finally:
        lock.release()
