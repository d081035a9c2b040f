"""If a store can't be opened, a message says why within seconds."""

from __future__ import annotations

import http.server
import os
import shlex
import shutil
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mlff_exp.common.shell import hydra_override, shell_command
from mlff_exp.config.config import Tracking
from mlff_exp.config.errors import ConfigError
from mlff_exp.runs.outcome import where_to_look
from mlff_exp.tracking import local, server
from mlff_exp.tracking.local import lock_store
from mlff_exp.tracking.recovery import open_store
from mlff_exp.tracking.relocate import relocate
from mlff_exp.tracking.server import SHORT_LIMITS
from mlff_exp.tracking.upload import log_run
from tests.helpers.store import finished

STRANGE = ["a?b", "a%41b", "it's #1", "~x", "é&$(y) {z};"]


def refused(match: str, directory: Path | None = None, experiment: str = "mlff_exp") -> None:
    """Opening a store, or the server's if it has no directory, ends with one line, soon."""
    where = Tracking(name="server") if directory is None else Tracking(directory=str(directory))
    where.experiment = experiment
    started = time.monotonic()
    with pytest.raises(ConfigError, match=match) as raised:
        open_store(where)
    assert time.monotonic() - started < 15
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 700


@pytest.mark.parametrize("name", STRANGE)
def test_a_store_lands_where_it_was_asked_for_whatever_its_name(
    tmp_path: Path, fresh_database: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / name
    directory.mkdir()
    shutil.copy(fresh_database, directory)
    where = Tracking(directory=str(directory))
    opened = open_store(where)
    assert opened is not None
    run_id = log_run(opened, finished(tmp_path / "run"))
    assert (directory / "artifacts" / run_id / "artifacts" / "result.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {name, "run"}
    # A shell splits the printed command into the words that MLflow needs.
    words = shlex.split(where_to_look(where).removeprefix("MLflow: "))
    assert words[:3] == ["mlflow", "ui", "--backend-store-uri"]
    assert MlflowClient(tracking_uri=words[3]).get_run(run_id).data.metrics["latency_median_ms"] == 1.25
    directory.rename(tmp_path / f"{name}%2")
    assert relocate(tmp_path / f"{name}%2") == 2
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}%2", "run"}


def test_a_fresh_store_is_made_where_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    open_store(Tracking(directory="~/a?b %41"))
    assert [path.name for path in tmp_path.iterdir()] == ["a?b %41"]
    assert (tmp_path / "a?b %41" / "mlflow.db").is_file()


@pytest.mark.parametrize("name", [*STRANGE, "a=b,c:d", "${x}", "back\\slash'"])
def test_a_printed_command_can_be_pasted(name: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    (word,) = shlex.split(shell_command(hydra_override("sweep.resume", f"/d/{name}")))
    override = OverridesParser.create().parse_override(word)
    assert OmegaConf.create({"x": override.value()}).x == f"/d/{name}"
    assert hydra_override("sweep.resume", "/d/2026-11-30/0_x") == "sweep.resume=/d/2026-11-30/0_x"


def test_a_damaged_database_is_said_to_be_one(mlruns: Path) -> None:
    database = mlruns / "mlflow.db"
    database.write_bytes(database.read_bytes()[:8192] + b"x" * 50_000)
    refused(r"no store in .*malformed: mlflow\.db is damaged", mlruns)
    database.write_text("no database, but long enough to look like one" * 100)
    refused(r"file is not a database: mlflow\.db is damaged", mlruns)
    with closing(sqlite3.connect(mlruns / "other.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
    (mlruns / "other.db").replace(database)
    refused("is a database of another program", mlruns)
    database.unlink()
    database.mkdir()
    refused("no store in .*unable to open database file", mlruns)


@pytest.mark.parametrize(("schema", "expected"), [("zzz", "newer MLflow"), (None, "older MLflow.*mlflow db upgrade")])
def test_a_database_of_another_mlflow_is_said_to_be_one(mlruns: Path, schema: str | None, expected: str) -> None:
    import mlflow.store.db_migrations
    from alembic.script import ScriptDirectory

    (where,) = mlflow.store.db_migrations.__path__
    head = ScriptDirectory(where).get_revision("head")
    assert head is not None
    with sqlite3.connect(mlruns / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (schema or head.down_revision,))
        # MLflow would migrate a database that lacks a table of today.
        connection.execute("DROP TABLE logged_model_tags")
    refused(expected, mlruns)
    with sqlite3.connect(mlruns / "mlflow.db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone()[0] != head.revision


@contextmanager
def without_roots_rights() -> Iterator[None]:
    """Other users are bound by the permissions of files; root becomes one of them for the block."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize("read_only", ["directory", "mlflow.db"])
def test_a_store_that_is_read_only_is_said_to_be_one(fresh_database: Path, read_only: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # the directories of pytest are closed to other users
        directory = Path(name) / "mlruns"
        directory.mkdir()
        database = Path(shutil.copy(fresh_database, directory))
        Path(name).chmod(0o755)
        directory.chmod(0o777)
        database.chmod(0o666)
        if read_only == "directory":
            directory.chmod(0o555)
        else:
            database.chmod(0o444)
        with without_roots_rights():
            refused("no store in .*: mlff_exp has to write to it: give yourself the permission", directory)
        directory.chmod(0o777)


def test_a_locked_store_is_said_to_be_one(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "BUSY_S", 0.2)
    monkeypatch.setattr(local, "MAKING_S", 0.2)
    with closing(sqlite3.connect(mlruns / "mlflow.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        refused("database is locked: another process has locked", mlruns)
    with lock_store(mlruns):
        refused("another process has been opening the store", mlruns)


def test_other_stores_and_places_are_refused(tmp_path: Path, mlruns: Path) -> None:
    (tmp_path / "files" / "0").mkdir(parents=True)
    (tmp_path / "files" / "0" / "meta.yaml").touch()
    refused("older store of plain files", tmp_path / "files")
    (tmp_path / "file").touch()
    refused("no store in .*file", tmp_path / "file")
    refused("no store in .*file", tmp_path / "file" / "below")
    refused("must have 1 to 500 characters", mlruns, "x" * 501)
    refused("must have 1 to 500 characters", mlruns, " ")


def test_a_deleted_experiment_is_said_to_be_one(mlruns: Path) -> None:
    store = open_store(Tracking(directory=str(mlruns)))
    assert store is not None
    store.client.delete_experiment(store.experiment_id)
    refused(rf"deleted in this store: .*mlflow experiments restore --experiment-id {store.experiment_id}", mlruns)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("file:/tmp/x", "is a directory, MLflow's older store"),
        ("./mlruns", "is a directory"),
        ("http://", "is no address"),
        ("localhost:5000", "is no address"),
        ("nonsense", "is no address"),
        ("http://host:99999", "is no address"),
        ("http://ho st:1", "is no address"),
        ("ftp://host", "is no address"),
        ("http://127.0.0.1:1", "no answer from the server at MLFLOW_TRACKING_URI"),
        ("http://no-such-host.invalid:5000", "no answer from the server at MLFLOW_TRACKING_URI"),
    ],
)
def test_a_server_that_is_not_mlflow_is_refused(monkeypatch: pytest.MonkeyPatch, uri: str, expected: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    refused(expected)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("mysql://u:pw@h/x", r"^tracking=server: \S+ needs the Python package MySQLdb, which is not installed"),
        ("mssql+nope://u:pw@h/x", "Can't load plugin"),
        ("sqlite:///:memory:", r"^tracking=server: \S+ is no database in a file"),
        ("sqlite://", "is no database in a file"),
        ("sqlite:////proc/x.db", "no answer from the server at MLFLOW_TRACKING_URI: .*unable to open database file"),
        ("postgresql+psycopg://u:pw@127.0.0.1:1/x", "no answer from the server .*onnection refused|needs the Python"),
    ],
)
def test_a_database_that_can_not_be_used_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], uri: str, expected: str
) -> None:
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    refused(expected)
    assert capfd.readouterr() == ("", "")


@contextmanager
def answering(status: int, body: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that has one answer to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Retry-After", "3600")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{found.server_port}")
        yield
        found.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, "You are not authenticated", "does not know you.*MLFLOW_TRACKING_USERNAME"),
        (403, "Permission denied", "does not allow you this"),
        (403, '{"error_code": "PERMISSION_DENIED"}', "does not allow"),
        (500, "<html>" + "x" * 5000, "answers with an error .500"),
        (503, "later", "answers with an error .503"),
        (404, "<html>\nnot found", "is no MLflow server"),
        (200, "<html>\nhello", "is no MLflow server"),
        (200, "{}", "is no MLflow server"),
        (200, "[]", "is no MLflow server"),
        (200, '{"experiment": 3}', "is no MLflow server"),
        (302, "", "server"),
    ],
)
def test_a_server_that_refuses_is_quoted(
    monkeypatch: pytest.MonkeyPatch, status: int, body: str, expected: str
) -> None:
    with answering(status, body, monkeypatch):
        refused(expected)


def test_a_silent_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHORT_LIMITS, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    before = dict(os.environ)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        refused("no answer from the server at MLFLOW_TRACKING_URI within 1 s")
        monkeypatch.setitem(SHORT_LIMITS, "MLFLOW_HTTP_REQUEST_TIMEOUT", "6")
        monkeypatch.setattr(server, "OPENING_S", 0.5)
        refused("no answer from the server at MLFLOW_TRACKING_URI within 0.5 s")
    monkeypatch.undo()
    assert dict(os.environ).items() >= {key: before[key] for key in before if key.startswith("MLFLOW_HTTP")}.items()


def test_a_slow_server_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of three requests takes three quarters of its limit; all limits are a quarter of the real ones."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append(self.path.partition("?")[0].rpartition("/2.0/mlflow/")[2])
            time.sleep(0.75)
            known = {"experiments/create": (200, b'{"experiment_id": "7"}'), "runs/search": (200, b"{}")}
            status, body = known.get(asked[-1], (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}'))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *arguments: object) -> None: ...

    monkeypatch.setitem(SHORT_LIMITS, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(server, "OPENING_S", server.OPENING_S / 4)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{found.server_port}")
        opened = open_store(Tracking(name="server"))
        found.shutdown()
    assert opened is not None
    assert opened.experiment_id == "7"
    assert asked == ["experiments/get-by-name", "experiments/create", "runs/search"]
