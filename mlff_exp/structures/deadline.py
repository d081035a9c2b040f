"""A limit of time for code of others that may never come back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_S = 1.0


class DeadlineError(BaseException):
    """The time is over; no `Exception`, because what it ends may catch those and go on."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End the block after so many seconds, and again if it goes on; without effect outside of the main thread.

    Raises:
        DeadlineError: the block took longer.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
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
