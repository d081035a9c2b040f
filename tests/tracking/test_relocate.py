"""An incomplete store is refused by name, and nothing is written to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mlff_exp.cli.commands import main
from mlff_exp.config.errors import ConfigError
from mlff_exp.report.target_files import load_targets
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


@pytest.mark.parametrize("address", [None, 3, b"\xff"])
def test_an_address_that_is_no_text_is_left_alone(tmp_path: Path, fresh_database: Path, address: object) -> None:
    (tmp_path / "mlflow.db").write_bytes(fresh_database.read_bytes())
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", (address,))
    assert relocate(tmp_path) == 0


@pytest.mark.parametrize(
    ("command", "message"),
    [("judge nosuch", "nosuch"), ("sync nosuch", "nosuch is not a directory"), ("relocate --nosuch", "--nosuch")],
)
def test_a_wrong_word_of_a_command_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    monkeypatch.setattr("sys.argv", ["mlff-exp", *command.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_targets_that_are_none_are_named_in_a_short_line(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text("word " * 1000)
    with pytest.raises(ConfigError, match="is no file of targets") as refused:
        load_targets([str(tmp_path / "long.yaml")])
    assert len(str(refused.value)) < 600
    with pytest.raises(ConfigError, match="'~no-such-user/x' is neither"):
        load_targets(["~no-such-user/x"])
