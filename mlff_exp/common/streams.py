"""Where a command prints: nothing that happens to a terminal or a pipe may cost a result."""

from __future__ import annotations

import contextlib
import errno
import io
import sys
from collections.abc import Iterator
from typing import Any, TextIO

# A pipe that nobody reads any more, as below `| head`, and a terminal that was closed.
NOBODY_READS = (errno.EPIPE, errno.EIO)


class _Unread(io.FileIO):
    """A file whose text is lost, and nothing else, once nobody reads it."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
        except OSError as error:
            if error.errno not in NOBODY_READS:
                raise
            return len(data)
        return written or 0


@contextlib.contextmanager
def printable_streams() -> Iterator[None]:
    """Let printing fail neither where nobody reads nor for a letter that the terminal's encoding lacks.

    Streams that are not the process's own, as in tests and notebooks, stay as they are.
    """
    before = sys.stdout, sys.stderr
    for name, own in (("stdout", sys.__stdout__), ("stderr", sys.__stderr__)):
        if own is not None and getattr(sys, name) is own:
            setattr(sys, name, _lenient(own))
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before


def _lenient(stream: TextIO) -> TextIO:
    try:
        stream.flush()
        number = stream.fileno()
    except (OSError, ValueError):  # nobody reads it already, or it is closed
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Unread(number, "w", closefd=False)),
        encoding=stream.encoding,
        errors="replace" if stream is sys.__stdout__ else stream.errors,
        line_buffering=True,
    )
