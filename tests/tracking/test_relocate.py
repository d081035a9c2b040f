"""An incomplete store is refused by name, and nothing is written to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mlff_exp.config.errors import ConfigError
from mlff_exp.tracking.relocate import relocate


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda whole: b"", "has no table experiments, runs, logged_models"),
        (lambda whole: b"no database at all" * 100, "file is not a database: mlflow.db is damaged"),
        (lambda whole: whole[: len(whole) // 2], "malformed: mlflow.db is damaged"),
        (lambda whole: whole[:4096] + bytes(len(whole) - 4096), "malformed: mlflow.db is damaged"),
    ],
)
def test_a_damaged_database_is_named(
    tmp_path: Path, fresh_database: Path, spoil: Callable[[bytes], bytes], message: str
) -> None:
    (tmp_path / "mlflow.db").write_bytes(spoil(fresh_database.read_bytes()))
    with pytest.raises(ConfigError, match=f"mlflow.db.*{message}"):
        relocate(tmp_path)


@pytest.mark.parametrize("table", ["experiments", "runs", "logged_models"])
def test_a_store_without_one_of_its_tables_is_named(tmp_path: Path, fresh_database: Path, table: str) -> None:
    (tmp_path / "mlflow.db").write_bytes(fresh_database.read_bytes())
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute(f"DROP TABLE {table}")
    with pytest.raises(ConfigError, match=f"it has no table {table}"):
        relocate(tmp_path)
