"""Open a local store: a directory with an SQLite database and artifacts."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from mlff_exp.common import DISK_ERRORS, free_space, shell_command
from mlff_exp.config import ConfigError, Tracking
from mlff_exp.tracking.address import DATABASE_FILE, database_url, store_directory
from mlff_exp.tracking.faults import first_line, say_on_stderr
from mlff_exp.tracking.store import Store, find_experiment, running_runs

if TYPE_CHECKING:
    from mlflow.entities import Run


BUSY_S = 8.0
# Making a new database takes seconds, and much longer on a busy machine.
MAKING_S = 120.0
READ_ONLY = "mlff_exp has to write to it: give yourself the permission, or choose another tracking.directory"
DAMAGED = "mlflow.db is damaged or no SQLite database: bring back a copy of it, or move it away to begin a new one"
ADVICE = {
    sqlite3.SQLITE_BUSY: f"another process has locked mlflow.db for {BUSY_S:g} s: wait for its end, or end it",
    sqlite3.SQLITE_LOCKED: "another process has locked mlflow.db: wait for its end, or end it",
    sqlite3.SQLITE_READONLY: READ_ONLY,
    sqlite3.SQLITE_PERM: READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: READ_ONLY,
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
}


def open_local_store(tracking: Tracking) -> tuple[Store, list[Run]]:
    """Open the store in ``tracking.directory``, making it on first use, and return the runs that are RUNNING in it.

    Raises:
        ConfigError: no database can be opened there. The message says why and what to do.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # This logger prints errors with a traceback that MLflow raises as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if not tracking.directory.strip():
        raise ConfigError("tracking.directory is empty: it must name a directory, as mlruns")
    directory = store_directory(tracking)
    database = directory / DATABASE_FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not database.exists() and next(directory.glob("*/meta.yaml"), None) is not None:
            raise ConfigError(
                f"tracking=local: {directory} holds MLflow's older store of plain files, which mlff_exp does not write "
                "to: choose another tracking.directory"
            )
        # Processes that migrate a new database at the same time make each other crash.
        with lock_store(directory):
            if database.exists():
                _refuse_unusable(database)
            else:
                make_database(database)
            client = MlflowClient(tracking_uri=database_url(database))
            # The artifact location is absolute: a relative one would depend on the current directory.
            location = (directory / "artifacts").as_uri()
            store = Store(client, find_experiment(client, tracking.experiment, location))
        return store, running_runs(store)
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise ConfigError(f"tracking=local: no store in {directory}: {explain_store_error(error, directory)}") from None


def make_database(database: Path) -> None:
    """Make a database atomically: MLflow can't open one that is incomplete."""
    from mlflow import MlflowClient

    partial = database.with_name("making.db")
    for left in database.parent.glob(f"{partial.name}*"):
        left.unlink()
    MlflowClient(tracking_uri=database_url(partial)).search_experiments()
    with closing(sqlite3.connect(partial)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    partial.replace(database)


@contextmanager
def lock_store(directory: Path) -> Iterator[None]:
    """Let one process at a time make or open the store; a process that waits long prints why."""
    path = directory / "mlflow.lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=BUSY_S)
    except Timeout:
        say_on_stderr(f"waiting for another process that opens the store in {directory}")
        try:
            lock.acquire(timeout=MAKING_S)
        except Timeout:
            raise ConfigError(
                f"tracking=local: another process has been opening the store in {directory} for "
                f"{BUSY_S + MAKING_S:g} s: end it; it holds {path}"
            ) from None
    try:
        yield
    finally:
        lock.release()


def _refuse_unusable(database: Path) -> None:
    """Check a database before MLflow opens it, which would retry for minutes or migrate another version's database.

    Raises:
        ConfigError: another version of MLflow or another program made the database.
        sqlite3.Error: it is locked, damaged or can't be written to.
    """
    with closing(sqlite3.connect(database, timeout=BUSY_S, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        # In a database that is read-only, the line above begins a transaction that only reads.
        connection.execute("CREATE TABLE mlff_exp_writes (x)")
        connection.execute("ROLLBACK")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return
        if "alembic_version" not in tables:
            raise ConfigError(
                f"tracking=local: {database} is a database of another program: choose another tracking.directory"
            )
        found = [version for (version,) in connection.execute("SELECT version_num FROM alembic_version")]
    _refuse_other_version(database, found)


def _refuse_other_version(database: Path, found: list[str]) -> None:
    from importlib.resources import as_file, files

    import mlflow
    from alembic.script import ScriptDirectory

    with as_file(files("mlflow.store.db_migrations")) as migrations:
        script = ScriptDirectory(str(migrations))
        if found == [script.get_current_head()]:
            return
        known = {revision.revision for revision in script.walk_revisions()}
    if set(found) <= known:
        upgrade = shell_command("mlflow", "db", "upgrade", database_url(database))
        raise ConfigError(
            f"tracking=local: {database} was made by an older MLflow (schema {', '.join(found)}): make a copy of "
            f"it, then {upgrade}"
        )
    raise ConfigError(
        f"tracking=local: {database} was made by a newer MLflow (schema {', '.join(found)}) than the one installed, "
        f"{mlflow.__version__}: install that one, or choose another tracking.directory"
    )


def explain_store_error(error: BaseException, directory: Path) -> str:
    """Return the message of an error, which SQLAlchemy and MLflow may have wrapped, with advice."""
    text = first_line(error) if isinstance(error, Exception) else ""
    cause: Any = error
    while cause is not None:
        cause = getattr(cause, "orig", None) or cause
        if isinstance(cause, sqlite3.Error):
            code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                return f"{first_line(cause)}; {free_space(directory)}"
            return f"{first_line(cause)}: {ADVICE[code]}" if code in ADVICE else first_line(cause)
        if isinstance(cause, OSError) and cause.errno in DISK_ERRORS:
            return f"{text}; {free_space(Path.cwd())}"
        if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"{text}: {READ_ONLY}"
        cause = cause.__cause__
    return text
