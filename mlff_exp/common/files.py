"""Write files atomically, and report a full disk."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_BYTES = 256 * 2**20  # of a file that is read at once
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def expand_home(path: str | Path) -> Path:
    """Return a path with a leading ``~`` replaced by the home directory; unchanged if there is no such user.

    ``./~a.xyz`` names a file in the current directory: a `Path` leaves out its first part.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` at the end, so that a reader finds the old or the new file.

    Raises:
        OSError: the file can't be written. The error names the file, which is unchanged.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def atomic_write(path: Path, text: str) -> None:
    """Write a text as `atomic_file` does.

    Raises:
        OSError: as `atomic_file`.
    """
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def refuse_irregular(path: Path, most: int | None = MAX_BYTES, *, may_be_empty: bool = False) -> None:
    """Refuse to read what is no regular file, is empty or is too large: a pipe or a device may wait for ever.

    Args:
        path: of the file; a link is followed.
        most: bytes that it may have; None if others see to that.
        may_be_empty: whether an empty file passes, because nothing is read beyond its size.

    Raises:
        ValueError: it is one of these. The message says which.
        OSError: the file can't be looked at.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a regular file")
    # What the system makes up has no size, and may wait as well.
    if not found.st_size and not may_be_empty:
        raise ValueError("it is empty")
    if most is not None and found.st_size > most:
        raise ValueError(f"it has {found.st_size:,} bytes; at most {most:,} are read")


def free_space(directory: Path) -> str:
    """Return the free space of a disk as text for messages."""
    return f"{shutil.disk_usage(directory).free / 2**20:.1f} MiB are free there"
