"""Files that are there whole or not at all, and what is said of a full disk."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, moved to it at the end: whoever reads it finds the old file or the new one.

    Raises:
        OSError: naming the file, which is as it was before.
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
    """Write a text as `whole` does, and with its errors."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def free_space(directory: Path) -> str:
    """How much room there is on the disk, for messages."""
    return f"{shutil.disk_usage(directory).free / 2**20:.1f} MiB are free there"
