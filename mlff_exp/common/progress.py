"""How far something has come: a bar on a terminal, and a line now and then in a log."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Protocol, Self

from tqdm import tqdm

LINE_EVERY_S = 30.0

# In place of one that all processes share: a process that is killed leaves its semaphore behind, with a warning.
tqdm.set_lock(threading.RLock())


class ProgressBar(Protocol):
    """What both have in common."""

    n: int
    total: int

    def update(self, n: int = 1) -> object:
        """So many more are done."""

    def set_postfix_str(self, text: str) -> None:
        """What is done now."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ProgressLines:
    """What tqdm shows, as lines for a file: none before half a minute, and then one every half minute at most.

    Args:
        total: steps.
        initial: steps that were done before.
        desc: what is being done.
        unit: name of a step.
    """

    def __init__(self, total: int, desc: str, unit: str, initial: int = 0) -> None:
        self.total, self.n, self._desc, self._unit, self._postfix = total, initial, desc, unit, ""
        self._last = time.monotonic()

    def update(self, n: int = 1) -> None:
        """So many more are done."""
        self.n += n
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            print(f"{self._desc}: {self.n}/{self.total} {self._unit}{self._postfix}", file=sys.stderr, flush=True)

    def set_postfix_str(self, text: str) -> None:
        """What is done now."""
        self._postfix = f", {text}" if text else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def progress_bar(
    total: int,
    desc: str,
    unit: str,
    *,
    initial: int = 0,
    leave: bool = True,
    mininterval: float = 0.1,
    smoothing: float = 0.3,
) -> ProgressBar:
    """A progress bar if stderr is a terminal, else lines; the arguments are tqdm's."""
    if sys.stderr is None or not sys.stderr.isatty():
        return ProgressLines(total, desc, unit, initial)
    found: ProgressBar = tqdm(
        total=total,
        desc=desc,
        unit=unit,
        initial=initial,
        leave=leave,
        mininterval=mininterval,
        smoothing=smoothing,
    )
    return found


def write_below_bars(line: str) -> None:
    """Print a line on stderr above the bars."""
    tqdm.write(line, file=sys.stderr)
