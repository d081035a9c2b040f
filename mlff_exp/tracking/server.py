"""Open the store of a tracking server, or say within seconds why that is not possible."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from mlff_exp.config import ConfigError, Tracking
from mlff_exp.tracking.database import check_database, connect_once
from mlff_exp.tracking.faults import first_line
from mlff_exp.tracking.store import Store, find_experiment, running_runs

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.exceptions import MlflowException


T = TypeVar("T")
WHERE = "the server at MLFLOW_TRACKING_URI"
# Time limit of opening a store, s, whatever the server or a name server does. A slow server has up to three requests.
OPENING_S = 11.0
# Limits of each request while a store is opened: the user waits for the first run.
SHORT_LIMITS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}
# Limits of later requests, which upload files; what a server does not accept stays on disk.
LONG_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
CREDENTIALS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def open_server_store(tracking: Tracking) -> tuple[Store, list[Run]]:
    """Open the store at MLFLOW_TRACKING_URI, and return the runs that are RUNNING in it.

    Raises:
        ConfigError: there is no address, or no MLflow server that accepts runs. The message says why.
    """
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        raise ConfigError("tracking=server needs the environment variable MLFLOW_TRACKING_URI")
    _refuse_address(uri)
    is_database = _is_database(uri)

    def ask() -> tuple[Store, list[Run]]:
        if is_database:
            connect_once(uri)
        client = MlflowClient(tracking_uri=uri)
        store = Store(client, find_experiment(client, tracking.experiment, None))
        return store, running_runs(store)

    try:
        if is_database:
            check_database(uri)
        with _short_limits():
            found = _within(OPENING_S, ask)
    except TimeoutError:
        raise ConfigError(f"tracking=server: no answer from {WHERE} within {OPENING_S:g} s") from None
    except ConfigError:  # a ValueError that says already what is wrong
        raise
    except MlflowException as error:
        raise ConfigError(f"tracking=server: {_reason(error)}") from error
    except (SQLAlchemyError, RequestException) as error:
        raise ConfigError(f"tracking=server: no answer from {WHERE}: {first_line(error)}") from error
    except (ParseError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"tracking=server: {_no_mlflow(f'{error!r}')}") from error
    for name, value in LONG_LIMITS.items():
        os.environ.setdefault(name, value)
    return found


def _is_database(uri: str) -> bool:
    return uri.partition(":")[0].partition("+")[0].lower() in DATABASES


def _refuse_address(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        wrong = parts.scheme in ("http", "https") and (not parts.hostname or parts.port == 0)
    except ValueError:
        wrong, parts = True, urlsplit("")
    named = parts.scheme in ("http", "https", "databricks") or _is_database(uri)
    if not wrong and (parts.scheme == "file" or (not parts.scheme and ("/" in uri or Path(uri).is_dir()))):
        raise ConfigError(
            f"tracking=server: MLFLOW_TRACKING_URI={uri} is a directory, MLflow's older store of plain files, and no "
            "server: take http://host:port, or tracking=local tracking.directory=…"
        )
    if wrong or not named or any(character.isspace() for character in uri):
        raise ConfigError(f"tracking=server: MLFLOW_TRACKING_URI={uri} is no address: it must be like http://host:5000")


@contextmanager
def _short_limits() -> Iterator[None]:
    """One try and a short one, unless the environment asks for still less; what each of them met is not logged."""
    retries = logging.getLogger("urllib3.connectionpool")
    level = retries.level
    retries.setLevel(logging.ERROR)
    before = {name: os.environ.get(name) for name in SHORT_LIMITS}
    for name, limit in SHORT_LIMITS.items():
        given = before[name] or ""
        if not (given.isdecimal() and limit.isdecimal() and int(given) < int(limit)):
            os.environ[name] = limit
    try:
        yield
    finally:
        retries.setLevel(level)
        for name, was in before.items():
            if was is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = was


def _within(seconds: float, ask: Callable[[], T]) -> T:
    """Return what a function returns, or raise TimeoutError after ``seconds`` and abandon the thread."""
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return answer.result(seconds)


def _reason(error: MlflowException) -> str:
    text = first_line(error)
    status = re.search(r"failed with error code (\d+)|too many (\d+) error responses", str(error))
    code = next(filter(None, status.groups()), "") if status else ""
    if error.error_code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED") or code == "401":
        return f"{WHERE} does not know you (401): set {CREDENTIALS}"
    if error.error_code == "PERMISSION_DENIED" or code == "403":
        return f"{WHERE} does not allow you this (403): ask whoever runs it, or set {CREDENTIALS}: {text}"
    if error.error_code == "ENDPOINT_NOT_FOUND" or "not in a valid JSON format" in str(error) or code in ("404", "405"):
        return _no_mlflow(text)
    if code:
        return f"{WHERE} answers with an error ({code}): look at its log: {text}"
    if "timeout exception" in str(error) or "timed out" in str(error):
        return f"no answer from {WHERE} within {SHORT_LIMITS['MLFLOW_HTTP_REQUEST_TIMEOUT']} s: is it running?"
    return f"no answer from {WHERE}: {text}"


def _no_mlflow(text: str) -> str:
    return f"what answers at MLFLOW_TRACKING_URI is no MLflow server: {text}"
