"""Errors of MLflow: a full disk, a store that does not answer, a run that is refused."""

from __future__ import annotations

import errno
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlff_exp.common import DISK_ERRORS, mask_secrets
from mlff_exp.config import ConfigError

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException


# Errors of SQLite when it can't write for lack of space, to the database or to its temporary files.
SQLITE_DISK_ERRORS = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
# Error codes of MLflow for requests that would be refused again.
PERMANENT = {
    "ALREADY_EXISTS", "BAD_REQUEST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "NOT_FOUND", "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST",
}  # fmt: skip
LINE = 300


def say_on_stderr(*lines: str) -> None:
    """Print messages on stderr, without secrets."""
    for line in lines:
        print(f"mlff-exp: {mask_secrets(line)}", file=sys.stderr)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, shortened if it is long."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= LINE else f"{lines[0][:LINE]}…"


def is_permanent(error: MlflowException) -> bool:
    """Return whether MLflow would refuse the same request again."""
    return error.error_code in PERMANENT


@contextmanager
def store_must_answer(otherwise: str = "no answer from MLflow's store") -> Iterator[None]:
    """Raise a ConfigError where a store does not answer before any work is done."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise ConfigError(f"{otherwise}: {first_line(error)}") from error


def disk_fault(error: BaseException | None) -> sqlite3.Error | None:
    """Return SQLite's error, which SQLAlchemy may have wrapped, if there was no space to write."""
    from sqlalchemy.exc import DBAPIError

    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF in SQLITE_DISK_ERRORS:
        return cause
    return None


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise an OSError where the disk is full; MLflow does not tell this error from others.

    A server or a directory that refuses a file is an error of the store instead.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except RequestException as error:
        raise MlflowException(str(error)) from error
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        raise MlflowException(str(error)) from error
    except MlflowException as error:
        if cause := disk_fault(error.__cause__):
            raise OSError(errno.EIO, f"MLflow's store: {cause}") from error
        raise
