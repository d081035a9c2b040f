"""Heartbeats of a running run, by which a dead run is found."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from mlff_exp.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run


DIRECTORY_TAG, PID_TAG, HOST_TAG, HEARTBEAT_TAG = "directory", "pid", "host", "heartbeat"
KEY_TAG = "directory.key"  # the hash of a key that is stored only in the run's directory
STATUS_TAG = "status"
FAILURE_TAGS = ("failure.kind", "failure.message")
HEARTBEAT_EVERY_S = 30.0
# For the parent of a sweep, whose jobs may wait a long time.
SWEEP_HEARTBEAT_EVERY_S = 600.0
# A run on another machine that has been silent for so long has ended.
SILENT_S = 3600.0
# If a process started later than this after a heartbeat, it is another process that got the same id.
CLOCK_TOLERANCE_S = 60.0


def heartbeat_tags(directory: Path) -> dict[str, str]:
    """Return the tags by which a run is later found dead or alive."""
    return {
        DIRECTORY_TAG: str(directory.resolve()),
        PID_TAG: str(os.getpid()),
        HOST_TAG: platform.node(),
        HEARTBEAT_TAG: str(time.time()),
    }


def is_alive(run: Run) -> bool:
    """Return whether the process that a RUNNING run names still exists; True for a run of another program."""
    tags = run.data.tags
    try:
        heartbeat, pid = float(tags[HEARTBEAT_TAG]), int(tags[PID_TAG])
    except (KeyError, ValueError):
        return True
    if tags.get(HOST_TAG) != platform.node():
        return time.time() - heartbeat < SILENT_S
    if not 0 < pid < 2**31:
        return True
    try:
        started = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    # A process that started after this heartbeat is another one with the same id.
    return bool(started < heartbeat + CLOCK_TOLERANCE_S)


@contextmanager
def send_heartbeats(store: Store, run_id: str) -> Iterator[None]:
    """Send heartbeats of a run for the duration of the block."""
    from mlflow.exceptions import MlflowException

    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(SWEEP_HEARTBEAT_EVERY_S):
            with suppress(MlflowException):  # the next one may arrive
                store.client.set_tag(run_id, HEARTBEAT_TAG, str(time.time()))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
