"""Interrupts from the keyboard, SIGTERM and SIGHUP: each ends a command once, after what it has found is recorded."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

INTERRUPTS_THAT_KILL = 3


class Terminated(KeyboardInterrupt):
    """Asked to end by SIGTERM, as `timeout` and a cluster's scheduler do: ends what an interrupt ends."""


class HungUp(KeyboardInterrupt):
    """Asked to end by SIGHUP, as a terminal does that closes: ends what an interrupt ends."""


RAISED: dict[int, type[KeyboardInterrupt]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
    signal.SIGHUP: HungUp,
}
# How an end by each is recorded: the kind of the failure, and who asked for it.
SIGNAL_REASONS = {
    KeyboardInterrupt: ("interrupted", "from the keyboard"),
    Terminated: ("terminated", "by SIGTERM"),
    HungUp: ("hung_up", "by SIGHUP"),
}


@contextlib.contextmanager
def raise_on_signals(*, for_good: bool = False) -> Iterator[None]:
    """Raise what `RAISED` names at the first signal inside the block; later ones don't disturb the clean-up.

    The third interrupt from a keyboard kills the process. A signal that was ignored before, as by ``nohup`` or for a
    job in the background, stays ignored.

    Args:
        for_good: after a signal, the process ends: later ones don't disturb what comes after the block either.
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

    One that comes while a process is being started would leave it running, unknown to us; one that comes while a
    result is being recorded would leave a record that nobody ends.
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
    """Leave what is ignored ignored; what Python does not know the handler of, it could not put back."""
    previous = {number: signal.getsignal(number) for number in RAISED}
    heard = {number: old for number, old in previous.items() if old not in (signal.SIG_IGN, None)}
    for number in heard:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in heard.items():
            # Python takes handlers of its own away while it cleans up, and a signal would kill it then.
            signal.signal(number, signal.SIG_IGN if ends() else old)


def _die(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
