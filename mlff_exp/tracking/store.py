"""Open an MLflow store."""

from __future__ import annotations

import errno
import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlff_exp.config import ConfigError, masked

if TYPE_CHECKING:
    from mlflow import MlflowClient

# A view of the runs in the UI, at …/#/experiments/<id>/runs?viewStateShareKey=headline.
VIEW = "headline"
VIEW_STATE = {
    "selectedColumns": [
        *(f"params.`{name}`" for name in ("engine.name", "engine.mode", "precision.name", "batch_size")),
        *(f"metrics.`{name}`" for name in ("latency_median_ms", "speedup_vs_baseline", "speedup_vs_single_eager")),
        *(f"metrics.`{name}`" for name in ("peak_memory_mib", "force_relative_rmse_vs_fp64_percent")),
        *(f"tags.`{name}`" for name in ("verdict", "timing.trust")),
    ]
}
# What SQLite says when it can't write: no room, in the database or beside it.
DISK_ERRORS = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


@dataclass(frozen=True)
class Store:
    """An MLflow store and the experiment in it."""

    client: MlflowClient
    experiment_id: str


def make_database(database: Path) -> None:
    """Make a database, whole or not at all: MLflow can't open one whose making was cut short."""
    from mlflow import MlflowClient

    partial = database.with_name("making.db")
    for left in database.parent.glob(f"{partial.name}*"):
        left.unlink()
    MlflowClient(tracking_uri=f"sqlite:///{partial}").search_experiments()
    with closing(sqlite3.connect(partial)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    partial.replace(database)


@contextmanager
def answering(otherwise: str = "no answer from MLflow's store") -> Iterator[None]:
    """Raise a ConfigError where a store gives no answer before any work was done."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise ConfigError(f"{otherwise}: {error}") from error


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise an OSError where SQLite could not write, which MLflow reports like any other trouble.

    And only there: a server that refuses a file is trouble with the store, but requests reports it as an OSError.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except RequestException as error:
        raise MlflowException(str(error)) from error
    except MlflowException as error:
        cause = error.__cause__.orig if isinstance(error.__cause__, DBAPIError) else None
        if isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode & 0xFF in DISK_ERRORS:
            raise OSError(errno.EIO, f"MLflow's store: {cause}") from error
        raise


def find_experiment(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    """Return the id of an experiment, which is made if there is none of this name."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    tags = {
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{VIEW}": json.dumps(VIEW_STATE),
    }
    try:
        return str(client.create_experiment(name, artifact_location=artifact_location, tags=tags))
    except MlflowException as error:
        # Another process was quicker.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return find_experiment(client, name, artifact_location)


def say(*lines: str) -> None:
    """Messages, without the password that the address of a server may hold."""
    for line in lines:
        print(f"mlff-exp: {masked(line)}", file=sys.stderr)
