"""What arrives in MLflow."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlff_exp import tracking
from mlff_exp.config import ConfigError, Tracking
from mlff_exp.result import Failure, Progress, RunResult
from tests.test_result import CONFIG, full_result


@pytest.fixture
def store(tmp_path: Path) -> tracking.Store:
    opened = tracking.connect(Tracking(directory=str(tmp_path / "mlruns")))
    assert opened is not None
    return opened


def finished(directory: Path, result: RunResult | None = None) -> Path:
    directory.mkdir(parents=True)
    (directory / "latency.png").write_bytes(b"png")
    (directory / "config.yaml").write_text("task: inference\n")
    (full_result() if result is None else result).save(directory)
    return directory


def test_a_run_is_found_again_by_its_id(store: tracking.Store, tmp_path: Path) -> None:
    directory = finished(tmp_path / "run")
    run_id = tracking.log_run(store, directory)
    assert tracking.directory_of(store, "task.resume", run_id) == directory.resolve()
    assert tracking.directory_of(None, "task.resume", str(directory)) == directory.resolve()
    with pytest.raises(ConfigError, match=r"task\.resume=nowhere is neither a directory nor an MLflow run"):
        tracking.directory_of(store, "task.resume", "nowhere")
    with pytest.raises(ConfigError, match=r"sweep\.resume=nowhere is not a directory, and tracking=offline"):
        tracking.directory_of(None, "sweep.resume", "nowhere")
    directory.rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is not on this machine"):
        tracking.directory_of(store, "task.resume", run_id)


def test_a_run_arrives_whole(store: tracking.Store, tmp_path: Path) -> None:
    run_id = tracking.log_run(store, finished(tmp_path / "run"), parent_id=None)
    run = store.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "inference · benzene · compile/reduce-overhead · fp32 · B16"
    assert run.data.metrics["latency_median_ms"] == 1.25
    assert run.data.params["engine.mode"] == "reduce-overhead"
    assert run.data.params["batch_size"] == "16"
    assert run.data.tags["verdict"] == "NO-GO"
    assert run.data.tags["verdict.reasons"] == "drift is not measured"
    assert "latency_median_ms" in run.data.tags["mlflow.note.content"]
    assert [(metric.step, metric.value) for metric in store.client.get_metric_history(run_id, "loss")] == [
        (1, 0.5),
        (2, 0.25),
    ]
    names = {item.path for item in store.client.list_artifacts(run_id)}
    assert names == {"result.json", "config.yaml", "latency.png"}


def test_progress_arrives_while_a_run_is_going_on(store: tracking.Store, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    live = tracking.Live(store, directory, CONFIG)
    live()
    assert live.run_id is None
    progress = Progress(directory)
    progress.write(1, {"loss": 0.5})
    live()
    assert live.run_id is not None
    assert store.client.get_run(live.run_id).info.status == "RUNNING"
    progress.write(2, {"loss": 0.25, "force_mae_mev_per_ang": 40.0})
    with (directory / "progress.jsonl").open("a") as file:
        file.write('{"step": 3, "metr')  # the next line, half written
    live()
    live()
    history = [(metric.step, metric.value) for metric in store.client.get_metric_history(live.run_id, "loss")]
    assert history == [(1, 0.5), (2, 0.25)]
    full_result().save(directory)
    assert tracking.log_run(store, directory, live_id=live.run_id) == live.run_id
    run = store.client.get_run(live.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["verdict"] == "NO-GO"
    assert run.data.metrics["latency_median_ms"] == 1.25
    assert len(store.client.get_metric_history(live.run_id, "loss")) == 2


def test_progress_waits_for_a_store_that_is_away(
    store: tracking.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Progress(tmp_path).write(1, {"loss": 0.5})
    live = tracking.Live(store, tmp_path, CONFIG)

    def away(*arguments: object, **keywords: object) -> None:
        raise MlflowException("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(store.client, "log_batch", away)
        live()
    assert "progress not in MLflow yet: no answer" in capsys.readouterr().err
    live()
    assert live.run_id is not None
    assert len(store.client.get_metric_history(live.run_id, "loss")) == 1


def test_failures_arrive_as_such(store: tracking.Store, tmp_path: Path) -> None:
    for status, expected in (("FAILED", "FAILED"), ("KILLED", "KILLED"), ("SKIPPED", "KILLED")):
        result = RunResult(config=CONFIG, status=status, failure=Failure("timeout", "too slow"))  # type: ignore[arg-type]
        run = store.client.get_run(tracking.log_run(store, finished(tmp_path / status, result)))
        assert run.info.status == expected
        assert run.data.tags["status"] == status
        assert run.data.tags["failure.kind"] == "timeout"


def test_a_run_is_uploaded_once(store: tracking.Store, tmp_path: Path) -> None:
    directory = finished(tmp_path / "run")
    assert tracking.log_run(store, directory) == tracking.log_run(store, directory)
    assert len(store.client.search_runs([store.experiment_id])) == 1


def test_sync_uploads_what_was_made_offline_once(tmp_path: Path) -> None:
    sweep = tmp_path / "outputs" / "sweep"
    for number in range(3):
        finished(sweep / str(number))
    (sweep / "multirun.yaml").write_text("sweep\n")
    (sweep / "report.md").write_text("table\n")
    finished(tmp_path / "outputs" / "single")
    local = Tracking(directory=str(tmp_path / "mlruns"))
    assert len(tracking.sync(tmp_path / "outputs", local)) == 4
    assert tracking.sync(tmp_path / "outputs", local) == []
    opened = tracking.connect(local)
    assert opened is not None
    runs = opened.client.search_runs([opened.experiment_id])
    parents = [run for run in runs if "sweep" in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(runs) == 5
    assert len(parents) == 1
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    assert len(children) == 3
    assert [item.path for item in opened.client.list_artifacts(parents[0].info.run_id)] == ["report.md"]


def test_the_parent_of_a_sweep_is_closed_whatever_happens(store: tracking.Store, tmp_path: Path) -> None:
    directories = [tmp_path / name for name in ("good", "bad", "stopped")]
    for directory in directories:
        directory.mkdir()
    with tracking.sweep(store, "phase1", directories[0]) as good:
        pass
    with pytest.raises(RuntimeError, match="boom"), tracking.sweep(store, "phase1", directories[1]) as bad:
        raise RuntimeError("boom")
    with pytest.raises(KeyboardInterrupt), tracking.sweep(store, "phase1", directories[2]) as stopped:
        raise KeyboardInterrupt
    statuses = [store.client.get_run(str(run_id)).info.status for run_id in (good, bad, stopped)]
    assert statuses == ["FINISHED", "FAILED", "KILLED"]
    with tracking.sweep(store, "phase1", directories[2]) as again:
        assert again == stopped
        assert store.client.get_run(again).info.status == "RUNNING"
    assert store.client.get_run(again).info.status == "FINISHED"
    assert tracking.directory_of(store, "sweep.resume", again) == directories[2].resolve()


def test_offline_opens_no_store() -> None:
    assert tracking.connect(Tracking(name="offline")) is None


def test_a_server_needs_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        tracking.connect(Tracking(name="server"))


def test_nested_values_are_flattened_and_cut(store: tracking.Store, tmp_path: Path) -> None:
    result = full_result()
    config = {**result.config, "a": {"b": {"c": 1}}, "long": "x" * 7000, "list": [1, 2]}
    run_id = tracking.log_run(store, finished(tmp_path / "run", replace(result, config=config)))
    params = store.client.get_run(run_id).data.params
    assert (params["a.b.c"], params["list"], params["long"]) == ("1", "[1, 2]", "x" * 6000)


def _open_and_log(directory: str, number: int) -> None:
    opened = tracking.connect(Tracking(directory=f"{directory}/mlruns"))
    assert opened is not None
    tracking.log_run(opened, finished(Path(directory) / str(number)))


@pytest.mark.slow
def test_four_processes_may_open_a_fresh_store_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(4, mp_context=context) as pool:
        list(pool.map(_open_and_log, [str(tmp_path)] * 4, range(4)))
    database = tmp_path / "mlruns" / "mlflow.db"
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("mlff_exp")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 4
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert experiment.artifact_location == (tmp_path / "mlruns" / "artifacts").as_uri()
