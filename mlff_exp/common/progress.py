"""Show progress: a bar on a terminal, or occasional lines in a log."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Protocol, Self

from tqdm import tqdm

LINE_EVERY_S = 30.0

# tqdm's default lock is shared by processes: a process that is killed leaves its semaphore, which causes a warning.
tqdm.set_lock(threading.RLock())


class ProgressBar(Protocol):
    """Interface of a progress bar."""

    n: int
    total: int

    def update(self, n: int = 1) -> object:
        """Add ``n`` steps."""

    def set_postfix_str(self, text: str) -> None:
        """Set a text that says what is being done now."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ProgressLines:
    """Progress as lines of text for a file: at most one every half minute.

    Args:
        total: number of steps.
        initial: steps that were done before.
        desc: what is being done.
        unit: name of a step.
    """

    def __init__(self, total: int, desc: str, unit: str, initial: int = 0) -> None:
        self.total, self.n, self._desc, self._unit, self._postfix = total, initial, desc, unit, ""
        self._last = time.monotonic()

    def update(self, n: int = 1) -> None:
        """Add ``n`` steps."""
        self.n += n
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            print(f"{self._desc}: {self.n}/{self.total} {self._unit}{self._postfix}", file=sys.stderr, flush=True)

    def set_postfix_str(self, text: str) -> None:
        """Set a text that says what is being done now."""
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
    delay: float = 0.0,
) -> ProgressBar:
    """Make a progress bar if stderr is a terminal, else lines; the arguments are those of tqdm."""
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
        delay=delay,
    )
    return found


def write_below_bars(line: str) -> None:
    """Print a line on stderr without disturbing progress bars."""
    tqdm.write(line, file=sys.stderr)
