"""Open the store, and close the runs in it whose process is gone."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

from filelock import FileLock

from mlff_exp.config import ConfigError, Tracking
from mlff_exp.disk import room
from mlff_exp.result import (
    RESULT_FILE,
    ResultError,
)
from mlff_exp.tracking.life import DIRECTORY_TAG, is_alive
from mlff_exp.tracking.store import Store, answering, find_experiment, make_database, say
from mlff_exp.tracking.upload import (
    log_run,
    opened_id,
)


def connect(tracking: Tracking) -> Store | None:
    """Open the store, making it on first use; None for ``tracking=offline``, which imports no MLflow.

    Runs in it that ended without a word are closed.

    Raises:
        ConfigError: ``tracking=server`` without MLFLOW_TRACKING_URI, or a server that does not answer; or a
            directory where no database can be opened, on a full disk perhaps.
    """
    if tracking.name == "offline":
        return None
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if tracking.name == "server":
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            raise ConfigError("tracking=server needs the environment variable MLFLOW_TRACKING_URI")
        # Few tries: somebody is waiting for the first run to start.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        with answering("tracking=server: no answer from the server at MLFLOW_TRACKING_URI"):
            client = MlflowClient(tracking_uri=uri)
            store = Store(client, find_experiment(client, tracking.experiment, None))
            close_dead_runs(store)
        return store

    # What it logs there with a traceback, it raises as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    directory = Path(tracking.directory).resolve()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        database = directory / "mlflow.db"
        # Processes that migrate a fresh database at the same time crash one another.
        with FileLock(directory / "mlflow.lock"):
            if not database.exists():
                make_database(database)
            client = MlflowClient(tracking_uri=f"sqlite:///{database}")
            # An absolute artifact location, or artifacts would follow whoever created the experiment.
            store = Store(client, find_experiment(client, tracking.experiment, (directory / "artifacts").as_uri()))
            close_dead_runs(store)
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"tracking=local: no store in {directory}: {reason}; {room(Path.cwd())}") from None
    return store


def close_dead_runs(store: Store) -> None:
    """Close runs whose process is gone; one that had finished by then, but was not uploaded, is uploaded."""
    for run in store.client.search_runs([store.experiment_id], "attributes.status = 'RUNNING'", max_results=1000):
        if is_alive(run):
            continue
        directory, why = Path(run.data.tags.get(DIRECTORY_TAG, "")), "the process ended without a word"
        try:
            if opened_id(directory) == run.info.run_id and (directory / RESULT_FILE).is_file():
                log_run(store, directory)
                continue
        # What one run left must not keep all later ones out of the store; a full disk would.
        except (ResultError, PermissionError, ValueError) as error:
            why = f"the end of run {run.info.run_id} can't be uploaded: {error}"
            say(why)
        for name, value in (("status", "KILLED"), ("failure.kind", "killed"), ("failure.message", why)):
            store.client.set_tag(run.info.run_id, name, value)
        store.client.set_terminated(run.info.run_id, status="KILLED")
