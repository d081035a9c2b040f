"""Decide which files of a run's directory may be uploaded; the directory may come from another user."""

from __future__ import annotations

import stat
from pathlib import Path

from mlff_exp.common import refuse_irregular
from mlff_exp.results import ResultError

# MLflow does not escape names in addresses.
NOT_IN_ADDRESSES = frozenset("/\\#?%\0\n\r")


def read_own(directory: Path, name: str) -> str | None:
    """Return the text of a file directly in a directory; None if there is no file of this name.

    Raises:
        ResultError: as `own_file`, or the file is empty, too large or no text in UTF-8.
    """
    path = own_file(directory, name)
    if path is None:
        return None
    try:
        refuse_irregular(path)
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} can't be read: {error}") from error


def own_file(directory: Path, name: object) -> Path | None:
    """Return the path of a file directly in a directory; None if there is no file of this name.

    Raises:
        ResultError: the name is a path, or the file is a link or no regular file.
    """
    if not isinstance(name, str) or not name.strip(". ") or NOT_IN_ADDRESSES & set(name):
        raise ResultError(f"{directory}: {name!r} is not the bare name of a file")
    path = directory / name
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ResultError(f"{directory}: {name!r} can't be read: {error}") from error
    if stat.S_ISLNK(found.st_mode):
        raise ResultError(f"{path} is a link: only files in the directory itself are uploaded")
    if not stat.S_ISREG(found.st_mode):
        raise ResultError(f"{path} is not a regular file")
    if found.st_nlink > 1:
        raise ResultError(f"{path} has other names elsewhere (hard links): copy it to upload it")
    return path
