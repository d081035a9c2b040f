"""Functions that processes of tests run; this module imports nothing that is slow."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mlff_exp.config.config import Config
from mlff_exp.results.result import RunResult
from mlff_exp.runs.sessions import begin_session


def fail_by_seed(config: Config, share: int, reason: Connection) -> None:
    """Succeed, say why not, end with a code, and be killed."""
    begin_session()
    if config.seed == 2:
        os._exit(3)
    if config.seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    reason.send("out_of_memory: 80 GB" if config.seed == 1 else "")


def sleep(config: Config, share: int, reason: Connection) -> None:
    """For longer than any test."""
    begin_session()
    time.sleep(600)


def start_another(config: Config, resolved: Mapping[str, Any], directory: Path, cold_cache: str | None) -> None:
    """A process in the same session, deaf to SIGTERM, whose number is left; then be killed, or sleep."""
    begin_session()
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    other = subprocess.Popen(["sleep", "600"])
    signal.signal(signal.SIGTERM, previous)
    (directory / "other.partial").write_text(str(other.pid))
    (directory / "other.partial").rename(directory / "other")
    if config.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def hold_the_lock(config: Config, resolved: Mapping[str, Any], directory: Path, cold_cache: str | None) -> None:
    """Never return from native code that keeps Python's lock; leave the number of a process that was started before."""
    begin_session()
    other = subprocess.Popen(["sleep", "600"])
    (directory / "other.partial").write_text(f"{os.getpid()} {other.pid}")
    (directory / "other.partial").rename(directory / "other")
    ctypes.PyDLL(None).sleep(600)


def finish_and_hang(config: Config, resolved: Mapping[str, Any], directory: Path, cold_cache: str | None) -> None:
    """Leave a result, and don't end."""
    begin_session()
    RunResult(resolved).save(directory)
    time.sleep(600)
