"""Correct the addresses of artifacts in a store that was moved."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from mlff_exp.common import expand_home
from mlff_exp.config import ConfigError
from mlff_exp.tracking.address import ARTIFACTS, DATABASE_FILE
from mlff_exp.tracking.local import BUSY_S, explain_store_error, lock_store

# Where MLflow's database keeps absolute addresses of artifacts.
ADDRESSES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))


def relocate(directory: Path) -> int:
    """Correct the addresses of artifacts in a store that was moved, and return how many were changed.

    Args:
        directory: present directory of the store.

    Raises:
        ConfigError: there is no store, or its database can't be read or written.
    """
    directory = expand_home(str(directory)).resolve()
    database = directory / DATABASE_FILE
    if not database.is_file():
        raise ConfigError(f"{directory} holds no {DATABASE_FILE}")
    try:
        with lock_store(directory), closing(sqlite3.connect(database, timeout=BUSY_S)) as connection, connection:
            return _changed(connection, database, (directory / ARTIFACTS).as_uri())
    except sqlite3.Error as error:
        raise ConfigError(f"{database}: {explain_store_error(error, directory)}") from error


def _changed(connection: sqlite3.Connection, database: Path, now: str) -> int:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if missing := [table for table, _ in ADDRESSES if table not in tables]:
        raise ConfigError(f"{database} is not a complete MLflow store: it has no table {', '.join(missing)}")
    changed = 0
    # Where artifacts were before, by the experiments that we made.
    before = {
        address
        for (address,) in connection.execute("SELECT artifact_location FROM experiments")
        if isinstance(address, str)
        and address.startswith("file://")
        and address.endswith("/artifacts")
        and address != now
    }
    for table, column in ADDRESSES:
        for old in before:
            # Not LIKE, because % in an address has a meaning there.
            cursor = connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (now, len(old) + 1, old, len(old) + 1, f"{old}/"),
            )
            changed += cursor.rowcount
    return changed
