"""The location of a local store as a path, as a URL, and as a command that opens it."""

from __future__ import annotations

from pathlib import Path

from mlff_exp.common import expand_home, shell_command
from mlff_exp.config import ConfigError, Tracking

DATABASE_FILE = "mlflow.db"
ARTIFACTS = "artifacts"  # a directory in the directory of a local store


def store_directory(tracking: Tracking) -> Path:
    """Return the absolute directory of a local store; a leading ``~`` is the home directory.

    Raises:
        ConfigError: there is no such user.
    """
    directory = expand_home(tracking.directory)
    if tracking.directory.startswith("~") and str(directory).startswith("~") and not directory.exists():
        raise ConfigError(f"{directory}: there is no such user as {directory.parts[0][1:] or '~'}; write the path out")
    return directory.resolve()


def is_in_store(path: Path) -> bool:
    """Return whether a file is an artifact of a local store."""
    above = path.resolve().parents
    stores = (one.parent for one in above if one.name == ARTIFACTS)
    return any((store / DATABASE_FILE).is_file() for store in stores)


def database_url(database: Path) -> str:
    """Return the URL of an SQLite database for MLflow; characters that mean something in a URL are escaped."""
    from sqlalchemy import URL

    plain = URL.create("sqlite", database=str(database)).render_as_string()
    if plain == f"sqlite:///{database}":
        return plain
    # MLflow makes the directory that a URL with sqlite:/// names, without unescaping it.
    return URL.create("sqlite+pysqlite", database=str(database)).render_as_string()


def store_url(directory: str) -> str:
    """Return the URL of the database of a local store.

    Args:
        directory: of the store; may start with ``~``.
    """
    return database_url(expand_home(directory).resolve() / DATABASE_FILE)


def ui_command(directory: Path) -> str:
    """Return a shell command that opens the MLflow UI on a local store."""
    return shell_command("mlflow", "ui", "--backend-store-uri", store_url(str(directory)))
