"""Where a local store is, as a path, as a URL and as a command that opens it."""

from __future__ import annotations

from pathlib import Path

from mlff_exp.common import shell_command
from mlff_exp.config import ConfigError, Tracking

DATABASE_FILE = "mlflow.db"
ARTIFACTS = "artifacts"  # the directory of a local store beside its database


def store_directory(tracking: Tracking) -> Path:
    """Return the absolute directory of a local store; a leading ``~`` is the home directory.

    Raises:
        ConfigError: there is no such user.
    """
    directory = expand_home(tracking.directory)
    if str(directory).startswith("~") and not directory.exists():
        raise ConfigError(f"{directory}: there is no such user as {directory.parts[0][1:] or '~'}; write the path out")
    return directory.resolve()


def is_in_store(path: Path) -> bool:
    """Whether a file is a copy that a local store keeps, as its artifact."""
    above = path.resolve().parents
    stores = (one.parent for one in above if one.name == ARTIFACTS)
    return any((store / DATABASE_FILE).is_file() for store in stores)


def expand_home(path: str) -> Path:
    """Return a path in which a leading ``~`` is the home directory; it stays if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def database_url(database: Path) -> str:
    """Return the URL of an SQLite database for MLflow; characters that mean something in a URL are escaped."""
    from sqlalchemy import URL

    plain = URL.create("sqlite", database=str(database)).render_as_string()
    if plain == f"sqlite:///{database}":
        return plain
    # MLflow makes the directory that a URL with sqlite:/// names, without unescaping it.
    return URL.create("sqlite+pysqlite", database=str(database)).render_as_string()


def store_url(directory: str) -> str:
    """Return the URL of the database of a store in a directory as somebody typed it."""
    return database_url(expand_home(directory).resolve() / DATABASE_FILE)


def ui_command(directory: Path) -> str:
    """Return the command that opens the MLflow UI on the store in a directory, to be pasted into a shell."""
    return shell_command("mlflow", "ui", "--backend-store-uri", store_url(str(directory)))
