"""Say why a database at MLFLOW_TRACKING_URI can't be used, before MLflow tries it many times."""

from __future__ import annotations

import logging
from pathlib import Path

from mlff_exp.config import ConfigError


def check_database(uri: str) -> None:
    """Refuse the address of a database that no MLflow store can be, or whose driver is not installed.

    Args:
        uri: as ``postgresql://user:password@host/database``.

    Raises:
        ConfigError: the database is in the memory of a process, or the Python package of its driver is missing.
        SQLAlchemyError: the address is none, or names a driver that SQLAlchemy does not know.
    """
    from sqlalchemy import make_url

    address = make_url(uri)
    if address.get_backend_name() == "sqlite" and (address.database or ":memory:").startswith((":memory:", "file:")):
        raise ConfigError(
            f"tracking=server: MLFLOW_TRACKING_URI={uri} is no database in a file: other processes can't see it; take "
            "sqlite:////directory/mlflow.db, http://host:port or tracking=local"
        )
    try:
        address.get_dialect().import_dbapi()
    except ImportError as error:
        raise ConfigError(
            f"tracking=server: MLFLOW_TRACKING_URI={uri} needs the Python package {error.name or error}, which is not "
            "installed: install it, or name another driver, as postgresql+psycopg://…"
        ) from error


def connect_once(uri: str) -> None:
    """Connect to a database and leave it; MLflow would try ten times and print what each try met.

    Raises:
        SQLAlchemyError: the database does not answer or refuses the user.
    """
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.pool import NullPool

    # This logger prints errors with a traceback that MLflow raises as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    address = make_url(uri)
    if address.get_backend_name() == "sqlite" and not Path(address.database or "").parent.is_dir():
        return  # MLflow makes the directory
    with create_engine(address, poolclass=NullPool).connect():
        pass
