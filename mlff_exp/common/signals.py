"""Interrupts from the keyboard, SIGTERM and SIGHUP: each ends a command once, after its results are recorded."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

INTERRUPTS_THAT_KILL = 3


class Terminated(KeyboardInterrupt):
    """SIGTERM, as `timeout` and the scheduler of a cluster send it; handled like an interrupt."""


class HungUp(KeyboardInterrupt):
    """SIGHUP, as a closing terminal sends it; handled like an interrupt."""


RAISED: dict[int, type[KeyboardInterrupt]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
    signal.SIGHUP: HungUp,
}
# Where each interrupt comes from, as messages say it.
SIGNAL_ORIGINS = {KeyboardInterrupt: "from the keyboard", Terminated: "by SIGTERM", HungUp: "by SIGHUP"}


@contextlib.contextmanager
def raise_on_signals(*, for_good: bool = False) -> Iterator[None]:
    """Raise the exception of `RAISED` at the first signal inside the block; later signals do not disturb the clean-up.

    The third interrupt from a keyboard kills the process. A signal that was ignored before, as by ``nohup`` or for a
    job in the background, stays ignored.

    Args:
        for_good: whether the process ends after the block, so that later signals are ignored there too.
    """
    raised, interrupts = False, 0

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal raised, interrupts
        interrupts += number == signal.SIGINT
        if interrupts >= INTERRUPTS_THAT_KILL:
            _die(number)
        if raised:
            if number == signal.SIGINT:
                with contextlib.suppress(OSError):  # print would fail where it was itself interrupted
                    os.write(2, b"\nmlff-exp: what was found is being recorded; one more Ctrl-C would lose it\n")
            return
        raised = True
        raise RAISED[number]

    with _handled_by(end, ends=lambda: for_good and raised):
        yield


@contextlib.contextmanager
def interrupts_postponed() -> Iterator[None]:
    """Act on interrupts, SIGTERM and SIGHUP after the block instead of inside it; the third interrupt kills.

    An interrupt while a process starts would leave that process running. An interrupt while a result is recorded would
    leave an open record.
    """
    if threading.current_thread() is not threading.main_thread():  # where signals are never delivered
        yield
        return
    pending: list[int] = []

    def postpone(number: int, frame: FrameType | None) -> None:
        pending.append(number)
        if pending.count(signal.SIGINT) >= INTERRUPTS_THAT_KILL:
            _die(number)

    with _handled_by(postpone):
        yield
    if pending:
        signal.raise_signal(pending[0])


@contextlib.contextmanager
def _handled_by(
    handler: Callable[[int, FrameType | None], None], ends: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Handle signals by a function; ignored signals stay ignored, and so do handlers that Python could not restore."""
    previous = {number: signal.getsignal(number) for number in RAISED}
    heard = {number: old for number, old in previous.items() if old not in (signal.SIG_IGN, None)}
    for number in heard:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in heard.items():
            # Python removes its handlers while it exits, and a signal would kill it then.
            signal.signal(number, signal.SIG_IGN if ends() else old)


def _die(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
