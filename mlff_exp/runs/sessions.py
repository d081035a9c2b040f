"""Sessions: a worker process and all its children end with the process that started the worker."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn

BLOCKED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start_server() -> None:
    """Start the process from which workers are forked, if it does not run; it ignores the signals that end a command.

    It gets the interrupts of the keyboard too, and must run until its command has recorded everything. It ends with the
    command, when the kernel closes a pipe between them.
    """
    resource_tracker.ensure_running()  # otherwise it would be started below, and would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED_SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_session() -> None:
    """Give this process its own session, which ends with the process that started it.

    Stopping the session also stops its children, such as compiler processes or a program that a calculator runs.

    A second process of the session waits for the end of the parent. A thread could not, because native code may hold
    Python's lock. The kernel can end a process together with its parent, but that would leave its children running.
    """
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_SIGNALS)  # `start_server` blocked them
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has one"
    session, sentinel = os.getpid(), parent.sentinel
    if os.fork() == 0:
        _end_with(sentinel, session)


def _end_with(sentinel: int, session: int) -> NoReturn:
    """Kill this session once the other end of ``sentinel`` is closed, which the kernel does when a process ends."""
    try:
        for number in BLOCKED_SIGNALS:  # they end the other processes of the session, and this one must survive them
            signal.signal(number, signal.SIG_IGN)
        # Open files and pipes must not seem to be in use after the worker has ended.
        for descriptor in {int(path.name) for path in Path("/dev/fd").iterdir()} - {sentinel}:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(descriptor)
        wait([sentinel])
        # Without delay: the next command closes this run's record, and would miss a later result.
        os.killpg(session, signal.SIGKILL)
    finally:
        os._exit(1)


def signal_session(process: BaseProcess, number: signal.Signals) -> None:
    """Send a signal to a process and its children, whether or not the process has ended."""
    assert process.pid is not None, "it was started"
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # all ended, or not yet in a session of its own
        process.kill()
