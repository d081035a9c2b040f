"""The only file that writes to MLflow: finished run directories become MLflow runs."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from mlff_exp.config import ConfigError, Tracking, flatten
from mlff_exp.result import RESULT_FILE, Progress, RunResult, label

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Written into a run's directory once its MLflow run is complete, so that it is uploaded once.
UPLOADED_FILE = "mlflow_run_id"
DIRECTORY_TAG = "directory"
CONFIG_FILE = "config.yaml"
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100


@dataclass(frozen=True)
class Store:
    """An MLflow store and the experiment in it."""

    client: MlflowClient
    experiment_id: str


def connect(tracking: Tracking) -> Store | None:
    """Open the store, making it on first use; None for ``tracking=offline``, which imports no MLflow.

    Raises:
        ConfigError: ``tracking=server`` without MLFLOW_TRACKING_URI.
    """
    if tracking.name == "offline":
        return None
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    if tracking.name == "server":
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            raise ConfigError("tracking=server needs the environment variable MLFLOW_TRACKING_URI")
        client = MlflowClient(tracking_uri=uri)
        return Store(client, _experiment(client, tracking.experiment, None))

    directory = Path(tracking.directory).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    database = directory / "mlflow.db"
    # Processes that migrate a fresh database at the same time crash one another.
    with FileLock(directory / "mlflow.lock"):
        fresh = not database.exists()
        client = MlflowClient(tracking_uri=f"sqlite:///{database}")
        # An absolute artifact location, or artifacts would follow whoever created the experiment.
        experiment_id = _experiment(client, tracking.experiment, (directory / "artifacts").as_uri())
        if fresh:
            with sqlite3.connect(database) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
    return Store(client, experiment_id)


class Live:
    """Follows a run that is going on: what it writes as its progress appears in MLflow as it comes."""

    def __init__(self, store: Store, directory: Path, config: Mapping[str, Any], parent_id: str | None = None) -> None:
        self._store, self._config, self._parent_id = store, config, parent_id
        self._progress, self._position = Progress(directory), 0
        self.run_id: str | None = None

    def __call__(self) -> None:
        """Log what is new; the run appears with its first progress.

        A store that can't be reached just now is tried again the next time: no run is ended for it.
        """
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        records, position = self._progress.read(self._position)
        if not records:
            return
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for step, values in records for name, value in values.items()]
        try:
            if self.run_id is None:
                self.run_id = _create_run(self._store, self._config, {}, self._parent_id)
            for start in range(0, len(metrics), METRICS_PER_CALL):
                self._store.client.log_batch(self.run_id, metrics=metrics[start : start + METRICS_PER_CALL])
        except MlflowException as error:
            print(f"mlff-exp: progress not in MLflow yet: {error}", file=sys.stderr)
        else:
            self._position = position


def _create_run(store: Store, config: Mapping[str, Any], tags: Mapping[str, str], parent_id: str | None) -> str:
    parent = {} if parent_id is None else {"mlflow.parentRunId": parent_id}
    run = store.client.create_run(store.experiment_id, run_name=label(config), tags={**tags, **parent})
    return str(run.info.run_id)


def log_run(store: Store, directory: Path, parent_id: str | None = None, live_id: str | None = None) -> str:
    """Upload a finished run's directory, once; returns the id of its MLflow run.

    Args:
        store: where to.
        directory: of the run.
        parent_id: of its sweep.
        live_id: of its MLflow run, if it was followed by `Live`, which has its series then.

    Raises:
        ValueError: the directory holds no valid result.
    """
    marker = directory / UPLOADED_FILE
    if marker.is_file():
        return marker.read_text().strip()
    result = RunResult.load(directory)
    client = store.client
    tags = {
        "mlflow.note.content": _note(result),
        "status": result.status,
        DIRECTORY_TAG: str(directory.resolve()),
        **_tags(result),
    }
    if live_id is None:
        run_id = _create_run(store, result.config, tags, parent_id)
    else:
        run_id = live_id
        for name, value in tags.items():
            client.set_tag(run_id, name, value)
    _log_params(client, run_id, result.config)
    _log_metrics(client, run_id, result, with_series=live_id is None)
    for name in (RESULT_FILE, CONFIG_FILE, *result.artifacts):
        if (directory / name).is_file():
            client.log_artifact(run_id, str(directory / name))
    client.set_terminated(run_id, status="KILLED" if result.status == "SKIPPED" else result.status)
    marker.write_text(run_id)
    return run_id


def set_tag(store: Store, run_id: str, name: str, value: str) -> None:
    """Put a word on a run."""
    store.client.set_tag(run_id, name, value[:5000])


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
    """
    if store is None:
        yield None
        return
    client, marker = store.client, directory / UPLOADED_FILE
    if marker.is_file():
        run_id = marker.read_text().strip()
        client.update_run(run_id, status="RUNNING")
    else:
        tags = {"sweep": name, DIRECTORY_TAG: str(directory.resolve())}
        run_id = str(client.create_run(store.experiment_id, run_name=name, tags=tags).info.run_id)
        marker.write_text(run_id)
    status = "FAILED"
    try:
        yield run_id
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        for path in sorted(directory.glob("report*")):
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id, status=status)


def sync(root: Path, tracking: Tracking) -> list[str]:
    """Upload every finished run below ``root`` that was not uploaded yet; returns the new run ids.

    Jobs of one sweep directory become children of one parent run.
    """
    store = connect(tracking)
    assert store is not None, "sync needs a store to upload to"
    uploaded = []
    parents: dict[Path, str | None] = {}
    for path in sorted(root.rglob(RESULT_FILE)):
        directory = path.parent
        if (directory / UPLOADED_FILE).is_file():
            continue
        sweep_directory = directory.parent
        parent_id = None
        if (sweep_directory / "multirun.yaml").is_file():
            if sweep_directory not in parents:
                with sweep(store, sweep_directory.name, sweep_directory) as parents[sweep_directory]:
                    pass  # its reports go with it
            parent_id = parents[sweep_directory]
        uploaded.append(log_run(store, directory, parent_id))
    return uploaded


def sync_main() -> None:
    """Command line of ``mlff-exp-sync``."""
    parser = argparse.ArgumentParser(
        prog="mlff-exp-sync", description="Upload runs made with tracking=offline to MLflow, each once."
    )
    parser.add_argument("directory", type=Path, help="a run's or sweep's directory, or any directory above them")
    parser.add_argument("--tracking", choices=("local", "server"), default="local", help="where to (default: local)")
    parser.add_argument("--mlruns", default="mlruns", help="directory of the local store (default: mlruns)")
    arguments = parser.parse_args()
    if not arguments.directory.is_dir():
        parser.error(f"{arguments.directory} is not a directory")
    try:
        uploaded = sync(arguments.directory, Tracking(name=arguments.tracking, directory=arguments.mlruns))
    except (ConfigError, ValueError) as error:
        sys.exit(f"mlff-exp-sync: {error}")
    print(f"{len(uploaded)} runs uploaded")


def _experiment(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    return str(client.create_experiment(name, artifact_location=artifact_location))


def _log_params(client: MlflowClient, run_id: str, config: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    # MLflow refuses longer ones.
    params = [Param(key, value[:6000]) for key, value in flatten(config).items()]
    for start in range(0, len(params), PARAMS_PER_CALL):
        client.log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])


def _log_metrics(client: MlflowClient, run_id: str, result: RunResult, *, with_series: bool) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, 0) for name, value in result.metrics.items()]
    for name, points in result.series.items() if with_series else ():
        metrics += [Metric(name, value, now, step) for step, value in points]
    for start in range(0, len(metrics), METRICS_PER_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_CALL])


def _tags(result: RunResult) -> dict[str, str]:
    tags = {"task": str(result.config["task"]["name"]), **result.tags}
    if result.verdict is not None:
        tags["verdict"] = result.verdict.decision
        tags["verdict.reasons"] = "; ".join(result.verdict.reasons)
    if result.failure is not None:
        tags["failure.kind"] = result.failure.kind
        tags["failure.message"] = result.failure.message[:5000]
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
        lines += [f"- {reason}" for reason in result.verdict.reasons]
    lines += ["| metric | value |", "| --- | --- |"]
    lines += [f"| {name} | {value:.6g} |" for name, value in result.metrics.items()]
    return "\n".join(lines)
