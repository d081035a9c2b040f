"""What MLflow is told: runs while they go on, finished run directories, the parents of sweeps, and verdicts."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import platform
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from mlff_exp.config import ConfigError, Gate, NveTask, Tracking, flatten, masked
from mlff_exp.disk import room, write_whole
from mlff_exp.result import (
    PROGRESS_FILE,
    RESULT_FILE,
    Progress,
    Record,
    ResultError,
    RunResult,
    label,
    system_name,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Written into a run's directory once its MLflow run is complete, so that it is uploaded once.
UPLOADED_FILE = "mlflow_run_id"
# Until then: the MLflow run that was opened for it, and how much of its progress is there.
OPENED_FILE = "mlflow_opened.json"
CONFIG_FILE = "config.yaml"
SWEEP_FILE = "multirun.yaml"  # of a whole sweep: what was asked for
DIRECTORY_TAG, PID_TAG, HOST_TAG, HEARTBEAT_TAG = "directory", "pid", "host", "heartbeat"
HEARTBEAT_EVERY_S = 30.0
# The parent of a sweep, whose jobs may wait for long.
SWEEP_HEARTBEAT_EVERY_S = 600.0
# A run on another machine that has been silent for so long has ended.
SILENT_S = 3600.0
# Between a heartbeat and the start of a process, by which numbers of processes that were given again are told apart.
CLOCK_TOLERANCE_S = 60.0
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
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100
INPUT_ATTEMPTS = 4
MAX_PARAM, MAX_TAG = 6000, 5000


@dataclass(frozen=True)
class Store:
    """An MLflow store and the experiment in it."""

    client: MlflowClient
    experiment_id: str


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
        with _answering("tracking=server: no answer from the server at MLFLOW_TRACKING_URI"):
            client = MlflowClient(tracking_uri=uri)
            store = Store(client, _experiment(client, tracking.experiment, None))
            _reap(store)
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
                _make(database)
            client = MlflowClient(tracking_uri=f"sqlite:///{database}")
            # An absolute artifact location, or artifacts would follow whoever created the experiment.
            store = Store(client, _experiment(client, tracking.experiment, (directory / "artifacts").as_uri()))
            _reap(store)
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"tracking=local: no store in {directory}: {reason}; {room(Path.cwd())}") from None
    return store


def _make(database: Path) -> None:
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
def _answering(otherwise: str = "no answer from MLflow's store") -> Iterator[None]:
    """Raise a ConfigError where a store gives no answer before any work was done."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise ConfigError(f"{otherwise}: {error}") from error


class Live:
    """A run that is going on: in MLflow from its start, with a heartbeat, and with its progress as it comes.

    Raises:
        ConfigError: the store can't be reached at the start.
        OSError: its disk is full.
    """

    def __init__(self, store: Store, directory: Path, config: Mapping[str, Any], parent_id: str | None = None) -> None:
        self._store, self._directory, self._position = store, directory, 0
        self._progress, self._beat = Progress(directory), time.monotonic()
        with _answering():
            self.run_id = _open_run(store, config, directory, parent_id)
        self._note()

    def __call__(self) -> None:
        """Log what is new.

        A store that can't be reached just now is tried again the next time: no run is ended for it.
        """
        from mlflow.exceptions import MlflowException

        records, position = self._progress.read(self._position)
        try:
            if time.monotonic() - self._beat >= HEARTBEAT_EVERY_S:
                self._store.client.set_tag(self.run_id, HEARTBEAT_TAG, str(time.time()))
                self._beat = time.monotonic()
            if records:
                _log_points(self._store.client, self.run_id, records)
                self._position = position
                self._note()
        except (MlflowException, OSError) as error:
            _say(f"progress not in MLflow yet: {error}")

    def _note(self) -> None:
        _note_opened(self._directory, self.run_id, self._position)


@contextmanager
def _disk_errors() -> Iterator[None]:
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


@_disk_errors()
def log_run(store: Store, directory: Path, parent_id: str | None = None) -> str:
    """Upload a finished run's directory, once; returns the id of its MLflow run.

    Args:
        store: where to.
        directory: of the run.
        parent_id: of its sweep.

    Raises:
        ResultError: the directory holds no valid result.
        OSError: the disk is full.
    """
    marker = directory / UPLOADED_FILE
    if marker.is_file():
        return marker.read_text().strip()
    result = RunResult.load(directory)
    client = store.client
    run_id, position = _opened(store, directory)
    if run_id is None:
        run_id = _open_run(store, result.config, directory, parent_id)
        # Should this be interrupted, the next attempt completes the same run.
        _note_opened(directory, run_id, 0)
    tags = {
        "mlflow.note.content": _note(result),
        "status": result.status,
        DIRECTORY_TAG: str(directory.resolve()),
        **_tags(result),
    }
    for name, value in tags.items():
        client.set_tag(run_id, name, value)
    _log_params(client, run_id, result.config)
    _log_metrics(client, run_id, result, directory, position)
    _log_inputs(store, run_id, result)
    for name in (RESULT_FILE, CONFIG_FILE, *result.artifacts):
        if (directory / name).is_file():
            client.log_artifact(run_id, str(directory / name))
    client.set_terminated(run_id, status="KILLED" if result.status == "SKIPPED" else result.status)
    write_whole(marker, run_id)
    (directory / OPENED_FILE).unlink(missing_ok=True)
    return run_id


def record(store: Store, directory: Path, parent_id: str | None = None) -> None:
    """`log_run` for a result that must not be lost with its server: it stays on disk, and a message says what to do.

    Raises:
        OSError: the disk is full.
    """
    from mlflow.exceptions import MlflowException

    try:
        log_run(store, directory, parent_id)
    except MlflowException as error:
        _say(f"not in MLflow yet: {error}", f"later: mlff-exp-sync {directory}")


def set_tag(store: Store, run_id: str, name: str, value: str) -> None:
    """Put a word on a run; a store that can't be reached just now is told of in a message.

    Raises:
        OSError: the disk is full.
    """
    from mlflow.exceptions import MlflowException

    try:
        with _disk_errors():
            store.client.set_tag(run_id, name, value[:MAX_TAG])
    except MlflowException as error:
        _say(f"not in MLflow: {name}={value}: {error}")


def found_go(store: Store | None, weights: str, gate: Gate, outputs: Path) -> bool:
    """Whether these weights have passed a gate, with these very limits, in FP32 and for at least 100 ps.

    Args:
        store: to look in, or None to look at what runs left on disk.
        weights: their hash.
        gate: to pass.
        outputs: where runs leave their directories.

    Raises:
        ConfigError: the store can't be reached.
    """
    if store is None:
        return any(_is_go(path.parent, weights, gate) for path in outputs.rglob(RESULT_FILE))
    # By its name as well, because a store answers that fast.
    wanted = (
        f"tags.verdict = 'GO' and tags.`checkpoint.sha256` = '{weights}' "
        f"and params.`gate.name` = '{gate.name}' and params.`precision.name` = 'fp32'"
    )
    with _answering():
        runs = store.client.search_runs([store.experiment_id], wanted)
    return any(_counts(run.data.params, gate) for run in runs)


def _counts(params: Mapping[str, str], gate: Gate) -> bool:
    """Whether a run with these parameters was held against a gate, and for long enough."""
    limits = flatten(asdict(gate), "gate.")
    held_against = {key: value for key, value in params.items() if key.startswith("gate.")}
    return held_against == limits and float(params.get("task.duration_ps", 0)) >= NveTask.duration_ps


def _is_go(directory: Path, weights: str, gate: Gate) -> bool:
    """Whether a run's result says GO; one that can't be read says nothing."""
    try:
        result = RunResult.load(directory)
    except ResultError:
        return False
    return (
        result.verdict is not None
        and result.verdict.decision == "GO"
        and result.tags.get("checkpoint.sha256") == weights
        and result.config["precision"]["name"] == "fp32"
        and _counts(flatten(result.config), gate)
    )


def directory_of(store: Store | None, key: str, run: str) -> Path:
    """Where a run, named by its directory or its MLflow id, left its files.

    Args:
        store: to look the id up in.
        key: of the configuration that names the run.
        run: directory or id.

    Raises:
        ConfigError: there is no such run, or it was on another machine.
    """
    if Path(run).is_dir():
        return Path(run).resolve()
    if store is None:
        raise ConfigError(f"{key}={run} is not a directory, and tracking=offline knows no runs by their id")
    from mlflow.exceptions import MlflowException

    try:
        directory = store.client.get_run(run).data.tags.get(DIRECTORY_TAG)
    except MlflowException as error:
        raise ConfigError(f"{key}={run} is neither a directory nor an MLflow run: {error}") from error
    if directory is None or not Path(directory).is_dir():
        raise ConfigError(f"{key}={run}: its directory, {directory}, is not on this machine")
    return Path(directory)


@contextmanager
def sweep(store: Store | None, name: str, directory: Path) -> Iterator[str | None]:
    """The parent run of a multirun; its jobs are children. Reports in ``directory`` become its artifacts.

    A directory that already has a parent run goes on with it.

    Raises:
        ConfigError: the store can't be reached at the start.
        OSError: the disk is full.
    """
    if store is None:
        yield None
        return
    with _answering():
        run_id = _open_sweep(store, name, directory)
    status = "FAILED"
    try:
        with _heart(store, run_id):
            yield run_id
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        _close_sweep(store, run_id, directory, status)


@contextmanager
def _heart(store: Store, run_id: str) -> Iterator[None]:
    """Heartbeats of a run for as long as the block takes."""
    from mlflow.exceptions import MlflowException

    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(SWEEP_HEARTBEAT_EVERY_S):
            with suppress(MlflowException):  # the next one may arrive
                store.client.set_tag(run_id, HEARTBEAT_TAG, str(time.time()))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@_disk_errors()
def _open_sweep(store: Store, name: str, directory: Path) -> str:
    client, marker = store.client, directory / UPLOADED_FILE
    if marker.is_file():
        run_id = marker.read_text().strip()
        client.update_run(run_id, status="RUNNING")
        for tag, value in _alive(directory).items():
            client.set_tag(run_id, tag, value)
    else:
        tags = {"sweep": name, **_alive(directory)}
        run_id = str(client.create_run(store.experiment_id, run_name=name, tags=tags).info.run_id)
        write_whole(marker, run_id)
    return run_id


def _close_sweep(store: Store, run_id: str, directory: Path, status: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        with _disk_errors():
            for path in sorted(directory.glob("report*")):
                store.client.log_artifact(run_id, str(path))
            table = directory / "report.md"
            if table.is_file():
                store.client.set_tag(run_id, "mlflow.note.content", table.read_text()[:MAX_TAG])
            store.client.set_terminated(run_id, status=status)
    except MlflowException as error:
        _say(f"not in MLflow yet: the end of this sweep: {error}", f"later: mlff-exp-sync {directory}")


def _say(*lines: str) -> None:
    """Messages, without the password that the address of a server may hold."""
    for line in lines:
        print(f"mlff-exp: {masked(line)}", file=sys.stderr)


def _alive(directory: Path) -> dict[str, str]:
    """By which a run is found dead later on."""
    return {
        DIRECTORY_TAG: str(directory.resolve()),
        PID_TAG: str(os.getpid()),
        HOST_TAG: platform.node(),
        HEARTBEAT_TAG: str(time.time()),
    }


def _reap(store: Store) -> None:
    """Close runs whose process is gone; one that had finished by then, but was not uploaded, is uploaded."""
    for run in store.client.search_runs([store.experiment_id], "attributes.status = 'RUNNING'", max_results=1000):
        if _is_alive(run):
            continue
        directory, why = Path(run.data.tags.get(DIRECTORY_TAG, "")), "the process ended without a word"
        try:
            if _opened_id(directory) == run.info.run_id and (directory / RESULT_FILE).is_file():
                log_run(store, directory)
                continue
        # What one run left must not keep all later ones out of the store; a full disk would.
        except (ResultError, PermissionError, ValueError) as error:
            why = f"the end of run {run.info.run_id} can't be uploaded: {error}"
            _say(why)
        for name, value in (("status", "KILLED"), ("failure.kind", "killed"), ("failure.message", why)):
            store.client.set_tag(run.info.run_id, name, value)
        store.client.set_terminated(run.info.run_id, status="KILLED")


def _is_alive(run: Run) -> bool:
    tags = run.data.tags
    if HEARTBEAT_TAG not in tags:
        return True  # not one of ours
    if tags.get(HOST_TAG) != platform.node():
        return time.time() - float(tags[HEARTBEAT_TAG]) < SILENT_S
    try:
        os.kill(int(tags[PID_TAG]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # A process that started after this sign of life is another one with the same number.
    return _started(int(tags[PID_TAG])) < float(tags[HEARTBEAT_TAG]) + CLOCK_TOLERANCE_S


def _started(pid: int) -> float:
    """When a process started, in seconds since 1970; 0 where Linux does not say."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0.0
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


@_disk_errors()
def _open_run(store: Store, config: Mapping[str, Any], directory: Path, parent_id: str | None) -> str:
    parent = {} if parent_id is None else {"mlflow.parentRunId": parent_id}
    run = store.client.create_run(store.experiment_id, run_name=label(config), tags={**_alive(directory), **parent})
    return str(run.info.run_id)


def _opened(store: Store, directory: Path) -> tuple[str | None, int]:
    """The MLflow run that was opened for a directory, if it is in this store, and how much progress it has."""
    from mlflow.exceptions import MlflowException

    run_id = _opened_id(directory)
    if run_id is None:
        return None, 0
    try:
        store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None, 0
        raise
    return run_id, int(json.loads((directory / OPENED_FILE).read_text())["position"])


def _note_opened(directory: Path, run_id: str, position: int) -> None:
    write_whole(directory / OPENED_FILE, json.dumps({"run_id": run_id, "position": position}))


def _opened_id(directory: Path) -> str | None:
    path = directory / OPENED_FILE
    return str(json.loads(path.read_text())["run_id"]) if path.is_file() else None


def _experiment(client: MlflowClient, name: str, artifact_location: str | None) -> str:
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
    return _experiment(client, name, artifact_location)


def _log_params(client: MlflowClient, run_id: str, config: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(key, value[:MAX_PARAM]) for key, value in flatten(config).items()]
    for start in range(0, len(params), PARAMS_PER_CALL):
        client.log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])


def _log_metrics(client: MlflowClient, run_id: str, result: RunResult, directory: Path, position: int) -> None:
    """Metrics, and the series: what is missing of the progress that the run wrote, or what it returned."""
    ended = int((directory / RESULT_FILE).stat().st_mtime * 1000)
    if (directory / PROGRESS_FILE).is_file():
        records, _ = Progress(directory).read(position)
    else:
        records = [
            Record(step, {name: value}, ended) for name, points in result.series.items() for step, value in points
        ]
    _log_points(client, run_id, [Record(0, result.metrics, ended), *records])


def _log_points(client: MlflowClient, run_id: str, records: list[Record]) -> None:
    """Points that are there already, from an upload that was cut short, are not doubled: their times are the same."""
    from mlflow.entities import Metric

    metrics = [
        Metric(name, value, record.time_ms, record.step) for record in records for name, value in record.metrics.items()
    ]
    for start in range(0, len(metrics), METRICS_PER_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_CALL])


def _log_inputs(store: Store, run_id: str, result: RunResult) -> None:
    """What was measured on: the labelled set or the system as a dataset, the weights as a logged model.

    The model carries the verdicts on its weights, by gate, system and precision.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput
    from mlflow.exceptions import MlflowException

    config, weights = result.config, result.tags.get("checkpoint.sha256")
    if result.failure is not None or config["task"]["name"] == "distill":
        return
    if config["task"]["name"] == "accuracy":
        name, source = config["task"]["dataset"], {"sha256": result.tags.get("dataset.sha256", "")}
    else:
        name, source = ", ".join(config["task"].get("systems") or [system_name(config)]), config["system"]
    text = json.dumps(source, sort_keys=True)
    digest = hashlib.sha256(f"{name} {text}".encode()).hexdigest()[:8]
    dataset = Dataset(name=name, digest=digest, source_type="mlff_exp", source=text)
    models = []
    if weights is not None:
        model_id = _logged_model(store, weights, config["model"])
        models.append(LoggedModelInput(model_id))
        if result.verdict is not None:
            where = f"verdict.{result.verdict.gate}.{name.replace(', ', '+')}.{config['precision']['name']}"
            store.client.set_logged_model_tags(model_id, {where: result.verdict.decision})
    inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", config["task"]["name"])])]
    for attempt in range(INPUT_ATTEMPTS):
        try:
            store.client.log_inputs(run_id, inputs, models)
        except MlflowException:
            # MLflow looks for the dataset and then makes it; another process may have been quicker.
            if attempt == INPUT_ATTEMPTS - 1:
                raise
        else:
            return


def _logged_model(store: Store, weights: str, model: Mapping[str, Any]) -> str:
    """The id of the logged model with these weights; made on first sight."""
    # MLflow refuses dots, quotes and some more in it.
    name = re.sub(r"[^\w-]", "_", f"{Path(model['checkpoint']).stem}-{weights[:12]}")
    found = store.client.search_logged_models([store.experiment_id], filter_string=f"name = '{name}'")
    # The oldest, should two processes have made one at the same moment.
    logged = min(found, key=lambda model: model.creation_timestamp, default=None)
    if logged is None:
        logged = store.client.create_logged_model(
            store.experiment_id, name=name, tags={"checkpoint.sha256": weights}, model_type="force field"
        )
    if logged.status != "READY":  # just made, or by a process that died before it could say so
        store.client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def _tags(result: RunResult) -> dict[str, str]:
    task = str(result.config["task"]["name"])
    tags = {"task": task, **result.tags}
    if task in ("inference", "accuracy"):
        tags["gate.decision"] = result.config["sweep"]["gate_decision"]
    if result.verdict is not None:
        tags["verdict"] = result.verdict.decision
        tags["verdict.reasons"] = "; ".join(result.verdict.reasons)
    if result.failure is not None:
        tags["failure.kind"] = result.failure.kind
        tags["failure.message"] = result.failure.message[:MAX_TAG]
    if "git_commit" in result.environment:
        tags["mlflow.source.git.commit"] = result.environment["git_commit"]
        tags["git.dirty"] = str(bool(result.environment["git_diff"])).lower()
    return tags


def _note(result: RunResult) -> str:
    lines = [f"**{label(result.config)}**", ""]
    if result.failure is not None:
        lines += [f"{result.status}: {result.failure.kind}: {result.failure.message}", ""]
    if result.verdict is not None:
        lines += [f"Gate {result.verdict.gate}: **{result.verdict.decision}**", ""]
        # A table right below a list would be part of its last item.
        lines += [*(f"- {reason}" for reason in result.verdict.reasons), ""]
    if result.metrics:
        lines += ["| metric | value |", "| --- | --- |"]
    lines += [f"| {name} | {value:.6g} |" for name, value in result.metrics.items()]
    return "\n".join(lines)
