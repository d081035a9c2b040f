"""Output streams on which printing never fails, so that no terminal or pipe can cost a result."""

from __future__ import annotations

import contextlib
import errno
import io
import sys
from collections.abc import Iterator
from typing import Any, TextIO

# Errors of a pipe without a reader, as after `| head`, and of a closed terminal.
NO_READER = (errno.EPIPE, errno.EIO)

STREAMS = {1: "standard output", 2: "standard error"}


class _Unread(io.FileIO):
    """A file that drops its text once nobody reads it, or after an error of writing, which is raised."""

    is_broken = False

    def write(self, data: Any) -> int:
        if self.is_broken:
            return len(data)
        try:
            written = super().write(data)
        except OSError as error:
            self.is_broken = True
            if error.errno not in NO_READER:
                raise OSError(error.errno, error.strerror, STREAMS.get(self.fileno())) from None
            return len(data)
        return written or 0


@contextlib.contextmanager
def printable_streams() -> Iterator[None]:
    """Let printing fail neither without a reader nor for a character that the encoding lacks.

    Streams that are not the process's own, as in tests and notebooks, are not changed.
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
    except (OSError, ValueError):  # there is no reader any more, or the stream is closed
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Unread(number, "w", closefd=False)),
        encoding=stream.encoding,
        errors="replace" if stream is sys.__stdout__ else stream.errors,
        line_buffering=True,
    )
