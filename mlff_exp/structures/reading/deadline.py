"""A time limit for foreign code that may never return."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_S = 1.0


class DeadlineError(BaseException):
    """The time is over. It is no `Exception`, because foreign code may catch those and continue."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Interrupt the block after a number of seconds, and again every second if it continues.

    A block outside the main thread has no time limit: only the main thread gets signals.

    Args:
        seconds: time limit, s.

    Raises:
        DeadlineError: the block took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise DeadlineError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
