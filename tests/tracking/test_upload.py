"""The content of MLflow after an upload."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import mlflow.store.db.utils
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from requests import HTTPError
from sqlalchemy.exc import OperationalError

from mlff_exp.config.config import Tracking
from mlff_exp.config.errors import ConfigError
from mlff_exp.config.gate import Gate, Limit
from mlff_exp.results.failure import Failure
from mlff_exp.results.gate import Conditions
from mlff_exp.results.progress import Progress
from mlff_exp.results.result import RunResult
from mlff_exp.results.verdict import Verdict
from mlff_exp.tasks.options import NveTask
from mlff_exp.tracking import heartbeat, upload
from mlff_exp.tracking.active import ActiveRun
from mlff_exp.tracking.lookup import RequiredGo, find_go, find_run_directory
from mlff_exp.tracking.recovery import fail_replaced_run, open_store
from mlff_exp.tracking.relocate import relocate
from mlff_exp.tracking.store import Store
from mlff_exp.tracking.sweeps import open_sweep, sweep_run
from mlff_exp.tracking.sync import sync_runs
from mlff_exp.tracking.upload import log_run, record_run
from tests.helpers.results import CONFIG, full_result
from tests.helpers.store import dead_pid, finished, processes


@pytest.fixture
def store(mlruns: Path) -> Store:
    opened = open_store(Tracking(directory=str(mlruns)))
    assert opened is not None
    return opened


def test_a_run_is_found_again_by_its_id(store: Store, tmp_path: Path) -> None:
    directory = finished(tmp_path / "run")
    run_id = log_run(store, directory)
    assert find_run_directory(store, "task.resume", run_id) == directory.resolve()
    assert find_run_directory(None, "task.resume", str(directory)) == directory.resolve()
    with pytest.raises(ConfigError, match=r"task\.resume=nowhere is neither a directory nor an MLflow run"):
        find_run_directory(store, "task.resume", "nowhere")
    with pytest.raises(ConfigError, match=r"sweep\.resume=nowhere is not a directory, and tracking=offline"):
        find_run_directory(None, "sweep.resume", "nowhere")
    with pytest.raises(ConfigError, match=r"^sweep\.resume=a+… can't be used: File name too long$"):
        find_run_directory(None, "sweep.resume", "a" * 300)
    directory.rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is not on this machine"):
        find_run_directory(store, "task.resume", run_id)


def test_a_run_is_uploaded_completely(store: Store, tmp_path: Path) -> None:
    run_id = log_run(store, finished(tmp_path / "run"), parent_id=None)
    run = store.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "inference · benzene · compile/reduce-overhead · fp32 · B16"
    assert run.data.metrics["latency_median_ms"] == 1.25
    assert run.data.params["engine.mode"] == "reduce-overhead"
    assert run.data.params["batch_size"] == "16"
    assert run.data.tags["verdict"] == "NO-GO"
    assert run.data.tags["verdict.reasons"] == "drift is not measured"
    note = "Gate strict: **NO-GO**\n\n- drift is not measured\n\n| metric | value |\n| --- | --- |\n"
    assert f"{note}| latency_median_ms | 1.25 |" in run.data.tags["mlflow.note.content"]
    assert [(metric.step, metric.value) for metric in store.client.get_metric_history(run_id, "loss")] == [
        (1, 0.5),
        (2, 0.25),
    ]
    names = {item.path for item in store.client.list_artifacts(run_id)}
    assert names == {"result.json", "config.yaml", "latency.png"}


def test_progress_arrives_while_a_run_is_going_on(store: Store, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    live = ActiveRun(store, directory, CONFIG)
    assert store.client.get_run(live.run_id).info.status == "RUNNING"
    progress = Progress(directory)
    progress.write(1, {"loss": 0.5})
    live()
    progress.write(2, {"loss": 0.25, "force_mae_mev_per_ang": 40.0})
    with (directory / "progress.jsonl").open("a") as file:
        file.write('{"step": 3, "metr')  # the next line, half written
    live()
    live()
    assert loss_of(store, live.run_id) == [(1, 0.5), (2, 0.25)]
    full_result().save(directory)
    assert log_run(store, directory) == live.run_id
    run = store.client.get_run(live.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["verdict"] == "NO-GO"
    assert run.data.metrics["latency_median_ms"] == 1.25
    assert loss_of(store, live.run_id) == [(1, 0.5), (2, 0.25)]


def loss_of(store: Store, run_id: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in store.client.get_metric_history(run_id, "loss")]


def away(*arguments: object, **keywords: object) -> None:
    raise MlflowException("no answer")


def test_missing_uploads_are_made_later_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(tmp_path)
    live = ActiveRun(store, tmp_path, CONFIG)
    progress.write(1, {"loss": 0.5})
    live()
    progress.write(2, {"loss": 0.25})
    with monkeypatch.context() as patched:
        patched.setattr(store.client, "log_batch", away)
        live()
        full_result().save(tmp_path)
        record_run(store, tmp_path)
    messages = capsys.readouterr().err
    assert "progress not in MLflow yet: no answer" in messages
    assert f"later: mlff-exp-sync {tmp_path}" in messages
    assert store.client.get_run(live.run_id).info.status == "RUNNING"
    for _ in range(2):
        record_run(store, tmp_path)
    assert store.client.get_run(live.run_id).info.status == "FINISHED"
    assert loss_of(store, live.run_id) == [(1, 0.5), (2, 0.25)]
    assert len(store.client.search_runs([store.experiment_id])) == 1


def test_an_upload_that_was_cut_short_doubles_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, points = Progress(tmp_path), [(step, step / 2) for step in range(5)]
    for step, value in points:
        progress.write(step, {"loss": value})
    full_result().save(tmp_path)
    monkeypatch.setattr(upload, "METRICS_PER_CALL", 2)
    with monkeypatch.context() as patched:
        patched.setattr(store.client, "set_terminated", away)
        with pytest.raises(MlflowException, match="no answer"):
            log_run(store, tmp_path)
    run_id = log_run(store, tmp_path)
    assert loss_of(store, run_id) == points
    assert len(store.client.get_metric_history(run_id, "latency_median_ms")) == 1


def test_weights_whose_record_was_cut_short_become_ready(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = finished(tmp_path / "run", replace(full_result(), tags={"checkpoint.sha256": "ab" * 32}))
    with monkeypatch.context() as patched:
        patched.setattr(store.client, "finalize_logged_model", away)
        with pytest.raises(MlflowException, match="no answer"):
            log_run(store, directory)
    log_run(store, directory)
    (weights,) = store.client.search_logged_models([store.experiment_id])
    assert weights.status == "READY"


def test_an_upload_whose_process_died_continues_at_the_next_start(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = finished(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(store.client, "log_batch", away)
        record_run(store, directory)
    (run,) = store.client.search_runs([store.experiment_id])
    assert run.info.status == "RUNNING"
    store.client.set_tag(run.info.run_id, "pid", dead_pid())
    open_store(Tracking(directory=str(tmp_path / "mlruns")))
    (run,) = store.client.search_runs([store.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["latency_median_ms"] == 1.25


def _die_between_tables(directory: str) -> None:
    mlflow.store.db.utils._upgrade_db = lambda engine: os.kill(os.getpid(), signal.SIGKILL)
    open_store(Tracking(directory=directory))


def test_a_store_whose_making_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    process = processes().Process(target=_die_between_tables, args=(str(tmp_path),))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "making.db").stat().st_size > 0
    opened = open_store(Tracking(directory=str(tmp_path)))
    assert opened is not None
    assert opened.client.get_experiment(opened.experiment_id).name == "mlff_exp"
    assert not list(tmp_path.glob("making.db*"))


def full(*arguments: object, **keywords: object) -> None:
    """The error that MLflow raises on a full disk, with the message of SQLite."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA max_page_count=1")
        try:
            connection.execute("CREATE TABLE t (x)")
        except sqlite3.OperationalError as error:
            raise MlflowException(str(error)) from OperationalError("CREATE", {}, error)


def test_a_full_disk_is_no_outage(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = finished(tmp_path / "run")
    for method in ("create_run", "set_tag"):
        with monkeypatch.context() as patched:
            patched.setattr(store.client, method, full)
            with pytest.raises(OSError, match="MLflow's store: database or disk is full"):
                record_run(store, directory)
    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", full)
    with pytest.raises(ConfigError, match=r"no store in .*: database or disk is full; .* MiB are free there"):
        open_store(Tracking(directory=str(tmp_path / "mlruns")))


def test_runs_that_ended_without_a_word_are_closed_at_the_next_start(store: Store, tmp_path: Path) -> None:
    directories = {
        name: tmp_path / name
        for name in ("alive", "killed", "damaged", "finished", "renumbered", "silent", "elsewhere")
    }
    runs = {}
    for name, directory in directories.items():
        directory.mkdir()
        runs[name] = ActiveRun(store, directory, CONFIG).run_id
    tags: dict[str, dict[str, str]] = {
        "killed": {"pid": dead_pid()},
        "damaged": {"pid": dead_pid()},
        "finished": {"pid": dead_pid()},
        "renumbered": {"heartbeat": "1000"},  # this process had not started by then
        "silent": {"host": "another", "heartbeat": "1000"},
        "elsewhere": {"host": "another"},
    }
    for name, values in tags.items():
        for tag, value in values.items():
            store.client.set_tag(runs[name], tag, value)
    full_result().save(directories["finished"])
    (directories["damaged"] / "result.json").write_text("{")
    foreign = store.client.create_run(store.experiment_id).info.run_id
    (tmp_path / "sweep").mkdir()
    sweep = open_sweep(store, "phase1", tmp_path / "sweep")
    for tag, value in tags["silent"].items():
        store.client.set_tag(sweep, tag, value)

    assert open_store(Tracking(directory=str(tmp_path / "mlruns"))) is not None
    found = {name: store.client.get_run(run_id) for name, run_id in runs.items()}
    assert {name: run.info.status for name, run in found.items()} == {
        "alive": "RUNNING", "killed": "KILLED", "damaged": "KILLED", "finished": "FINISHED", "renumbered": "KILLED",
        "silent": "KILLED",
        "elsewhere": "RUNNING",
    }  # fmt: skip
    assert store.client.get_run(sweep).info.status == "KILLED"
    assert found["killed"].data.tags["failure.kind"] == "killed"
    assert found["killed"].data.tags["failure.message"] == "the process ended without a word"
    assert "can't be uploaded" in found["damaged"].data.tags["failure.message"]
    assert found["finished"].data.metrics["latency_median_ms"] == 1.25
    assert store.client.get_run(foreign).info.status == "RUNNING"


def test_a_moved_store_finds_its_artifacts_again(store: Store, tmp_path: Path) -> None:
    run_id = log_run(store, finished(tmp_path / "run"))
    store.client.log_batch(run_id)  # the database is closed by its last connection only
    moved = tmp_path / "elsewhere" / "mlruns"
    moved.parent.mkdir()
    (tmp_path / "mlruns").rename(moved)
    assert relocate(moved) == 2
    assert relocate(moved) == 0
    again = open_store(Tracking(directory=str(moved)))
    assert again is not None
    names = {item.path for item in again.client.list_artifacts(run_id)}
    assert names == {"result.json", "config.yaml", "latency.png"}
    with pytest.raises(ConfigError, match=r"holds no mlflow\.db"):
        relocate(tmp_path)


def test_the_measured_set_is_an_input_and_weights_carry_their_verdict(store: Store, tmp_path: Path) -> None:
    result = replace(full_result(), tags={"checkpoint.sha256": "ab" * 32})
    verdict = result.verdict
    assert verdict is not None
    decisions: list[tuple[str, Literal["GO", "NO-GO"]]] = [("one", "NO-GO"), ("two", "GO")]
    # MLflow takes neither dots nor quotes in the name of a model.
    result = replace(result, config={**result.config, "model": {**result.config["model"], "checkpoint": "my.v2's.pt"}})
    first, second = (
        log_run(store, finished(tmp_path / name, replace(result, verdict=replace(verdict, decision=said))))
        for name, said in decisions
    )
    (weights,) = store.client.search_logged_models([store.experiment_id])
    assert weights.tags["checkpoint.sha256"] == "ab" * 32
    (key,) = (tag for tag in weights.tags if tag.startswith("verdict."))
    assert weights.tags[key] == "GO", "the latest counts"
    for run_id in (first, second):
        inputs = store.client.get_run(run_id).inputs
        assert [model.model_id for model in inputs.model_inputs] == [weights.model_id]
        assert len(inputs.dataset_inputs) == 1


def test_a_go_is_found_by_weights_and_gate(store: Store, tmp_path: Path) -> None:
    limit = {"min": -1.0, "max": None}
    config: dict[str, Any] = {
        **CONFIG,
        "task": {"name": "nve", "replicas": 1, "duration_ps": 100.0},
        "gate": {"name": "strict", "criteria": {"drift": limit}},
        "precision": {"name": "fp32"},
    }
    verdict = Verdict("GO", "strict", (), ())
    result = RunResult(config=config, verdict=verdict, tags={"checkpoint.sha256": "ab" * 32})
    log_run(store, finished(tmp_path / "outputs" / "run", result))
    short = RunResult(
        config={**config, "task": {**config["task"], "duration_ps": 1.0}},
        verdict=verdict,
        tags={"checkpoint.sha256": "ef" * 32},
    )
    log_run(store, finished(tmp_path / "outputs" / "short", short))
    (finished(tmp_path / "outputs" / "0") / "result.json").write_text("of another version")
    for where in (store, None):
        for weights, name, low, expected in (
            ("ab", "strict", -1.0, True),
            ("cd", "strict", -1.0, False),
            ("ab", "seed", -1.0, False),
            ("ab", "strict", -0.5, False),
            ("ef", "strict", -1.0, False),
        ):
            gate = Gate(name, {"drift": Limit(low)})
            assert find_go(where, RequiredGo(weights * 32, gate), [tmp_path / "outputs"]) == expected


GATE = Gate("strict", {"drift": Limit(-1.0)})
WATER = {"name": "water"}


def went(directory: Path, duration_ps: float = 100.0, timestep_fs: float = 0.5, **groups: Any) -> Path:
    """A run with a GO, of the gate above."""
    task = {"name": "nve", "replicas": 1, "systems": groups.pop("systems", []), "duration_ps": duration_ps}
    task |= {"timestep_fs": timestep_fs, "temperature_k": 300.0}
    gate = {"name": "strict", "criteria": {"drift": {"min": -1.0, "max": None}}}
    config = {**CONFIG, "task": task, "gate": gate, "precision": {"name": "fp32"}, **groups}
    verdict = Verdict("GO", "strict", (), ())
    return finished(directory, RunResult(config=config, verdict=verdict, tags={"checkpoint.sha256": "ab" * 32}))


@pytest.mark.parametrize(
    ("ran", "wanted", "expected"),
    [
        ({"system": WATER}, WATER, True),
        ({"system": WATER}, {"name": "benzene"}, False),
        ({"system": WATER}, None, True),
        ({"systems": ["benzene", "water"]}, WATER, True),
        ({"systems": ["benzene", "water_dimer"]}, WATER, False),
        ({"system": {"name": "x", "path": "a.xyz", "index": -1}}, {"name": "x", "path": "b.xyz", "index": -1}, False),
        ({"system": {"name": "water_box", "n_molecules": 8}}, {"name": "water_box", "n_molecules": 64}, False),
        ({"system": {"name": "water_box", "n_molecules": 8}}, {"name": "water_box", "n_molecules": 8}, True),
    ],
)
def test_a_go_is_of_the_system_that_it_is_asked_for(
    store: Store, tmp_path: Path, ran: dict[str, Any], wanted: dict[str, Any] | None, *, expected: bool
) -> None:
    log_run(store, went(tmp_path / "run", **ran))
    for where in (store, None):
        assert find_go(where, RequiredGo("ab" * 32, GATE, wanted), [tmp_path]) == expected


@pytest.mark.parametrize(
    ("usual", "expected"),
    [
        (Conditions(0.5, 300.0), True),
        (Conditions(1.0, 200.0), True),
        (Conditions(2.0, 300.0), False),
        (Conditions(1.0, 301.0), False),
        (None, True),
    ],
)
def test_a_go_under_easier_conditions_is_another(
    store: Store, tmp_path: Path, usual: Conditions | None, *, expected: bool
) -> None:
    log_run(store, went(tmp_path / "run", system=WATER, timestep_fs=1.0))
    for where in (store, None):
        assert find_go(where, RequiredGo("ab" * 32, GATE, WATER, usual), [tmp_path]) == expected


def test_a_go_that_an_earlier_version_recorded_is_found_under_the_new_name_of_its_gate(store: Store) -> None:
    params = {
        "gate.name": "seed", "gate.criteria.drift.min": "-1.0", "gate.criteria.drift.max": "None",
        "precision.name": "fp32", "task.duration_ps": "100.0",
    }  # fmt: skip
    run = store.client.create_run(store.experiment_id, tags={"verdict": "GO", "checkpoint.sha256": "ab" * 32})
    for name, value in params.items():
        store.client.log_param(run.info.run_id, name, value)
    wanted = RequiredGo("ab" * 32, Gate("plan", {"drift": Limit(-1.0)}))
    assert find_go(store, wanted, [])


def test_how_long_a_go_takes_is_no_default_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    went(tmp_path / "short", 99.0)
    monkeypatch.setattr(NveTask, "duration_ps", 1.0)
    assert not find_go(None, RequiredGo("ab" * 32, GATE), [tmp_path])


def test_failures_arrive_as_such(store: Store, tmp_path: Path) -> None:
    for status, expected in (("FAILED", "FAILED"), ("KILLED", "KILLED"), ("SKIPPED", "KILLED")):
        result = RunResult(config=CONFIG, status=status, failure=Failure("timeout", "too slow"))  # type: ignore[arg-type]
        run = store.client.get_run(log_run(store, finished(tmp_path / status, result)))
        assert run.info.status == expected
        assert run.data.tags["status"] == status
        assert run.data.tags["failure.kind"] == "timeout"


def test_a_run_is_uploaded_once(store: Store, tmp_path: Path) -> None:
    directory = finished(tmp_path / "run")
    assert log_run(store, directory) == log_run(store, directory)
    assert len(store.client.search_runs([store.experiment_id])) == 1


def test_sync_uploads_offline_results_once(mlruns: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "outputs" / "sweep"
    for number in range(3):
        finished(sweep / str(number))
    (sweep / "multirun.yaml").write_text("sweep\n")
    (sweep / "report.md").write_text("table\n")
    finished(tmp_path / "outputs" / "single")
    local = Tracking(directory=str(mlruns))
    assert len(sync_runs(tmp_path / "outputs", local)) == 4
    assert sync_runs(tmp_path / "outputs", local) == []
    opened = open_store(local)
    assert opened is not None
    runs = opened.client.search_runs([opened.experiment_id])
    parents = [run for run in runs if "sweep" in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(runs) == 5
    assert len(parents) == 1
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    assert len(children) == 3
    assert [item.path for item in opened.client.list_artifacts(parents[0].info.run_id)] == ["report.md"]


def test_the_parent_of_a_sweep_is_closed_whatever_happens(store: Store, tmp_path: Path) -> None:
    directories = [tmp_path / name for name in ("good", "bad", "stopped")]
    for directory in directories:
        directory.mkdir()
    with sweep_run(store, "phase1", directories[0]) as good:
        pass
    with pytest.raises(RuntimeError, match="boom"), sweep_run(store, "phase1", directories[1]) as bad:
        raise RuntimeError("boom")
    with pytest.raises(KeyboardInterrupt), sweep_run(store, "phase1", directories[2]) as stopped:
        raise KeyboardInterrupt
    statuses = [store.client.get_run(str(run_id)).info.status for run_id in (good, bad, stopped)]
    assert statuses == ["FINISHED", "FAILED", "KILLED"]
    with sweep_run(store, "phase1", directories[2]) as again:
        assert again is not None
        assert again == stopped
        assert store.client.get_run(again).info.status == "RUNNING"
    assert store.client.get_run(again).info.status == "FINISHED"
    assert find_run_directory(store, "sweep.resume", again) == directories[2].resolve()


def test_the_parent_of_a_sweep_shows_that_it_is_alive(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "SWEEP_HEARTBEAT_EVERY_S", 0.01)
    with sweep_run(store, "phase1", tmp_path) as parent:
        first = now = store.client.get_run(str(parent)).data.tags["heartbeat"]
        deadline = time.monotonic() + 10
        while now == first and time.monotonic() < deadline:
            time.sleep(0.01)
            now = store.client.get_run(str(parent)).data.tags["heartbeat"]
    assert float(now) > float(first)


def test_telemetry_of_mlflow_is_off(mlruns: Path) -> None:
    script = f"""if True:
        from mlff_exp.config import Tracking
        from mlff_exp.tracking import open_store
        open_store(Tracking(directory={str(mlruns)!r}))
        from mlflow.telemetry import get_telemetry_client
        print(get_telemetry_client())
    """
    environment = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_DISABLE_TELEMETRY", "CI")}
    finished = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert finished.stdout == "None\n", finished.stderr


def test_offline_opens_no_store() -> None:
    assert open_store(Tracking(name="offline")) is None


def test_a_server_needs_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        open_store(Tracking(name="server"))


def test_a_store_that_is_lost_before_any_work_refuses_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it had answered the question before."""

    def lost(*arguments: Any, **keywords: Any) -> None:
        raise MlflowException("connection refused")

    monkeypatch.setattr(MlflowClient, "search_runs", lost)
    monkeypatch.setattr(MlflowClient, "create_run", lost)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.client.tracking_uri)
    with pytest.raises(ConfigError, match="no answer from the server at MLFLOW_TRACKING_URI: connection refused"):
        open_store(Tracking(name="server"))
    with pytest.raises(ConfigError, match="no answer from MLflow's store: connection refused"):
        find_go(store, RequiredGo("0" * 64, Gate()), [tmp_path])
    with pytest.raises(ConfigError, match="no answer from MLflow's store"):
        ActiveRun(store, tmp_path, CONFIG)
    with pytest.raises(ConfigError, match="no answer from MLflow's store"), sweep_run(store, "phase1", tmp_path):
        pass


def test_a_file_that_a_server_refuses_is_uploaded_later(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = finished(tmp_path / "run")
    with monkeypatch.context() as patched:

        def refuse(*arguments: Any) -> None:
            raise HTTPError("507 Server Error: Insufficient Storage")

        patched.setattr(MlflowClient, "log_artifact", refuse)
        record_run(store, directory)
    assert f"Insufficient Storage\nmlff-exp: later: mlff-exp-sync {directory}\n" in capsys.readouterr().err
    run_id = log_run(store, directory)
    assert "result.json" in {item.path for item in store.client.list_artifacts(run_id)}
    assert len(store.client.search_runs([store.experiment_id])) == 1


def test_nested_values_are_flattened_and_cut(store: Store, tmp_path: Path) -> None:
    result = full_result()
    config = {**result.config, "a": {"b": {"c": 1}}, "long": "x" * 7000, "list": [1, 2]}
    run_id = log_run(store, finished(tmp_path / "run", replace(result, config=config)))
    params = store.client.get_run(run_id).data.params
    assert (params["a.b.c"], params["list"], params["long"]) == ("1", "[1, 2]", "x" * 6000)


def _open_and_log(directory: str, number: int) -> None:
    opened = open_store(Tracking(directory=f"{directory}/mlruns"))
    assert opened is not None
    log_run(opened, finished(Path(directory) / str(number)))


@pytest.mark.slow
def test_four_processes_may_open_a_fresh_store_at_once(tmp_path: Path) -> None:
    with concurrent.futures.ProcessPoolExecutor(4, mp_context=processes()) as pool:
        list(pool.map(_open_and_log, [str(tmp_path)] * 4, range(4)))
    database = tmp_path / "mlruns" / "mlflow.db"
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("mlff_exp")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 4
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert experiment.artifact_location == (tmp_path / "mlruns" / "artifacts").as_uri()


def test_a_run_whose_result_was_damaged_and_that_runs_again_is_no_finished_run(store: Store, tmp_path: Path) -> None:
    """Otherwise the job would be in the store twice."""
    whole, damaged = finished(tmp_path / "0"), finished(tmp_path / "1")
    kept, lost = log_run(store, whole), log_run(store, damaged)
    (damaged / "result.json").write_text("{")
    for _ in range(2):
        fail_replaced_run(store, damaged)
    found = store.client.get_run(lost)
    assert (found.info.status, found.data.tags["status"], found.data.tags["failure.kind"]) == (
        "FAILED",
        "FAILED",
        "replaced",
    )
    assert store.client.get_run(kept).info.status == "FINISHED"

    foreign = tmp_path / "2"
    foreign.mkdir()
    (foreign / "mlflow_run_id").write_text(kept)
    fail_replaced_run(store, foreign)
    assert store.client.get_run(kept).info.status == "FINISHED", "a file may name any run"
