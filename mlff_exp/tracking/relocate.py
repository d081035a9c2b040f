"""Makes a store that was moved find its artifacts again."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from filelock import FileLock

from mlff_exp.config import ConfigError
from mlff_exp.tracking.address import DATABASE_FILE, expanded

# Where MLflow's database keeps absolute addresses of artifacts.
ADDRESSES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))


def relocate(directory: Path) -> int:
    """Make a store that was moved find its artifacts again; returns how many addresses were changed.

    Args:
        directory: of the store, where it is now.

    Raises:
        ConfigError: there is no store.
    """
    directory = expanded(str(directory)).resolve()
    database = directory / DATABASE_FILE
    if not database.is_file():
        raise ConfigError(f"{directory} holds no {DATABASE_FILE}")
    now = (directory / "artifacts").as_uri()
    changed = 0
    with FileLock(directory / "mlflow.lock"), sqlite3.connect(database) as connection:
        # Where artifacts were before, by the experiments that we made.
        before = {
            address
            for (address,) in connection.execute("SELECT artifact_location FROM experiments")
            if address.startswith("file://") and address.endswith("/artifacts") and address != now
        }
        for table, column in ADDRESSES:
            for old in before:
                # Not LIKE, to which the % of an address means something.
                cursor = connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (now, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )
                changed += cursor.rowcount
    return changed
