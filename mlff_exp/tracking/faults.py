"""What may go wrong with MLflow: a full disk, a store that gives no answer, a run that it refuses."""

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


# What SQLite says when it can't write: no room, in the database or beside it.
SQLITE_DISK_ERRORS = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
# Codes of MLflow with which it would refuse the same request again.
PERMANENT = {
    "ALREADY_EXISTS", "BAD_REQUEST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "NOT_FOUND", "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST",
}  # fmt: skip
LINE = 300


def say_on_stderr(*lines: str) -> None:
    """Print messages, without the password that the address of a server may hold."""
    for line in lines:
        print(f"mlff-exp: {mask_secrets(line)}", file=sys.stderr)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, cut where it is a whole page."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= LINE else f"{lines[0][:LINE]}…"


def is_permanent(error: MlflowException) -> bool:
    """Whether MLflow would refuse the same request again, however often it is asked."""
    return error.error_code in PERMANENT


@contextmanager
def store_must_answer(otherwise: str = "no answer from MLflow's store") -> Iterator[None]:
    """Raise a ConfigError where a store gives no answer before any work was done."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise ConfigError(f"{otherwise}: {first_line(error)}") from error


def disk_fault(error: BaseException | None) -> sqlite3.Error | None:
    """Return what SQLite said, directly or through SQLAlchemy, if it could not write for want of room."""
    from sqlalchemy.exc import DBAPIError

    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF in SQLITE_DISK_ERRORS:
        return cause
    return None


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise an OSError where the disk is full, which MLflow reports like any other trouble.

    And only there: a server or a directory that refuses a file is trouble with the store.
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
