"""A process and all that it started, as one: it ends with the process that asked for it."""

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
    """Start the process that workers are forked from, if it does not run, deaf to what ends a command.

    An interrupt from a keyboard reaches it as well, and it must be there until its command has recorded everything.
    It ends with the command, when the kernel closes a pipe between them.
    """
    resource_tracker.ensure_running()  # or it would be started below, and would let the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED_SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_session() -> None:
    """Give this process a session of its own, which ends with the process that started it.

    So stopping it also stops what it starts: the compiler's processes, or a program that a calculator runs.

    A second process of the session waits for the end of that one. A thread could not: it stands still while native
    code keeps Python's lock. Nor does it help that the kernel can end a process with its parent: that leaves what
    the process started.
    """
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_SIGNALS)  # those of `start_server`
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has one"
    session, sentinel = os.getpid(), parent.sentinel
    if os.fork() == 0:
        _end_with(sentinel, session)


def _end_with(sentinel: int, session: int) -> NoReturn:
    """Kill this session once the other end of ``sentinel`` is closed, which the kernel does when a process ends."""
    try:
        for number in BLOCKED_SIGNALS:  # which end the others of the session, and this one has to see to it
            signal.signal(number, signal.SIG_IGN)
        # What else is open here must not seem to be in use once the worker has ended.
        for descriptor in {int(path.name) for path in Path("/dev/fd").iterdir()} - {sentinel}:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(descriptor)
        wait([sentinel])
        # At once: the next command closes this run's record, and would miss a result that came after that.
        os.killpg(session, signal.SIGKILL)
    finally:
        os._exit(1)


def signal_session(process: BaseProcess, number: signal.Signals) -> None:
    """Send a signal to a process and to all that it started, whether or not it has ended itself."""
    assert process.pid is not None, "it was started"
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # all ended, or not yet in a session of its own
        process.kill()
