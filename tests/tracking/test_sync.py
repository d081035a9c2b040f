"""The runs and files that are uploaded from a directory, and the names that MLflow takes."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils import validation

from mlff_exp.cli.sync import sync_main
from mlff_exp.config.config import Tracking
from mlff_exp.results.failure import Failure
from mlff_exp.results.progress import Progress
from mlff_exp.results.result import ResultError, RunResult
from mlff_exp.tracking import markers
from mlff_exp.tracking.active import ActiveRun
from mlff_exp.tracking.describe import read_progress
from mlff_exp.tracking.files import own_file
from mlff_exp.tracking.limits import MAX_DATASET_NAME, MAX_KEY, MAX_PARAM, MAX_TAG, model_name, shorten, valid_key
from mlff_exp.tracking.markers import LOCK_FILE, lock_directory
from mlff_exp.tracking.recovery import open_store
from mlff_exp.tracking.store import Store
from mlff_exp.tracking.sweeps import open_sweep, sweep_run
from mlff_exp.tracking.sync import sync_runs
from mlff_exp.tracking.upload import log_run, record_run
from tests.helpers.results import CONFIG, full_result
from tests.helpers.store import dead_pid, finished


@pytest.fixture
def store(mlruns: Path) -> Store:
    opened = open_store(Tracking(directory=str(mlruns)))
    assert opened is not None
    return opened


@pytest.fixture
def where(mlruns: Path) -> Tracking:
    return Tracking(directory=str(mlruns))


@pytest.fixture
def second(tmp_path: Path, fresh_database: Path) -> Tracking:
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "mlflow.db").write_bytes(fresh_database.read_bytes())
    return Tracking(directory=str(tmp_path / "second"))


def runs(where: Tracking) -> list[Any]:
    store = open_store(where)
    assert store is not None
    return list(store.client.search_runs([store.experiment_id]))


NAMES = [
    "a(b)",
    "a=b",
    "a/../b",
    "/etc",
    "../x",
    "..",
    ".",
    "",
    "a//b",
    "a/",
    "x" * 300,
    "ä€",
    "a\n",
    "a\\b",
    "%41",
    "a b:c/d",
    "./x",
    "task.name",
    " ",
    "\0",
    "…" * 260,
    "a..",
    "../..",
    "x/.",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_and_values_pass_mlflows_own_rules(name: str) -> None:
    key = valid_key(name)
    validation._validate_param(key, "x" * MAX_PARAM)
    validation._validate_metric(key, 1.0, 0, 0)
    validation._validate_tag(key, shorten(name * 9000, MAX_TAG))
    validation._validate_logged_model_name(model_name(name))
    assert len(shorten(name * 600, MAX_DATASET_NAME)) <= validation.MAX_DATASET_NAME_SIZE
    assert len(model_name(name)) <= MAX_KEY
    assert valid_key(key) == key


def test_names_that_are_changed_stay_different() -> None:
    assert len({valid_key(name) for name in [*NAMES, "a[b]", "a{b}", "x" * 301]}) == len(NAMES) + 3
    assert valid_key("task.min_time_s") == "task.min_time_s"
    assert valid_key("a b:c/d") == "a b:c/d"


def test_a_run_with_strange_names_arrives(store: Store, tmp_path: Path) -> None:
    result = full_result()
    config = {
        **result.config,
        **dict.fromkeys(NAMES, "1"),
        "a(b)": 1,
        "a[b]": 2,
        "empty": "",
        "wide": ["€" * 7000],
        "system": {"name": "file", "path": f"{'s' * 900}.xyz"},
        "model": {"name": "student", "checkpoint": f"{'m' * 900}.pt"},
    } | {f"long{n}": "€" * 6000 for n in range(150)}
    tags = {**dict.fromkeys(NAMES, "x" * 9000), "checkpoint.sha256": "ab" * 32}
    metrics = {**dict.fromkeys(NAMES, 1), "huge": 10**300}
    series = {"a(b)": [(2**70, 1.0), (1, 2.0)], **result.series}
    strange = replace(result, config=config, tags=tags, metrics=metrics, series=series)
    run_id = log_run(store, finished(tmp_path / "run", strange))
    run = store.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params[valid_key("a(b)")] == "1"
    assert run.data.params[valid_key("a[b]")] == "2"
    assert run.data.metrics["huge"] == 1e300
    assert [point.step for point in store.client.get_metric_history(run_id, valid_key("a(b)"))] == [0, 1]
    assert len(run.inputs.dataset_inputs) == 1


def test_tags_of_a_result_do_not_set_tags_of_mlflow(store: Store, tmp_path: Path) -> None:
    victim = store.client.create_run(store.experiment_id).info.run_id
    tags = {
        "mlflow.parentRunId": victim,
        "mlflow.user": "root",
        "directory": "/etc",
        "pid": "1",
        "status": "x",
        "sweep": "x",
    }
    run = store.client.get_run(log_run(store, finished(tmp_path / "run", replace(full_result(), tags=tags))))
    assert "mlflow.parentRunId" not in run.data.tags
    assert "sweep" not in run.data.tags
    assert "mlflow.user" not in run.data.tags
    assert run.data.tags["directory"] == str(tmp_path / "run")
    assert run.data.tags["status"] == "FINISHED"


def contents(store: Store) -> bytes:
    root = Path(store.client.tracking_uri.removeprefix("sqlite:///")).parent / "artifacts"
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())


def test_only_files_of_the_directory_itself_are_uploaded(
    store: Store, where: Tracking, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    sweep = tmp_path / "outputs" / "sweep"
    names = ["link", "hard", "dir", "pipe", "latency.png"]
    directory = finished(sweep / "0", replace(full_result(), artifacts=names))
    (directory / "link").symlink_to(secret)
    (directory / "hard").hardlink_to(secret)
    (directory / "dir").mkdir()
    os.mkfifo(directory / "pipe")
    (directory / "config.yaml").unlink()
    (directory / "config.yaml").symlink_to(secret)
    (directory / "progress.jsonl").symlink_to(secret)
    (sweep / "multirun.yaml").touch()
    (sweep / "report.md").symlink_to(secret)
    (sweep / "report.html").symlink_to(secret)
    other = tmp_path / "outputs" / "other"
    other.mkdir()
    (other / "result.json").symlink_to(directory / "result.json")
    failures: list[str] = []
    assert sync_runs(tmp_path / "outputs", where, failures.append) == []
    assert len(failures) == 2, failures
    assert all("is a link" in line for line in failures)
    (directory / "progress.jsonl").unlink()
    (run_id,) = sync_runs(tmp_path / "outputs", where, failures.append)
    assert {item.path for item in store.client.list_artifacts(run_id)} == {"result.json", "latency.png"}
    assert b"hunter2" not in contents(store)
    assert b"hunter2" not in (tmp_path / "mlruns" / "mlflow.db").read_bytes()
    assert "not in MLflow" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret", "below/secret", "run/../../secret", "..", "", 3, None, "a\0b", "a\nb"]
)
def test_only_bare_file_names_are_uploaded(store: Store, tmp_path: Path, name: Any) -> None:
    (tmp_path / "secret").write_text("hunter2")
    directory = finished(tmp_path / "run", replace(full_result(), artifacts=("latency.png",)))
    (directory / "below").symlink_to(tmp_path)
    values = json.loads((directory / "result.json").read_text()) | {"artifacts": [name]}
    del values["sha256"]  # a hostile file has none, or the right one
    (directory / "result.json").write_text(json.dumps(values))
    with contextlib.suppress(ResultError):
        log_run(store, directory)
    assert b"hunter2" not in contents(store)
    assert b"root:" not in contents(store)
    with pytest.raises(ResultError, match="bare name"):
        own_file(directory, name)


@pytest.mark.parametrize("is_sweep", [False, True])
def test_no_directory_writes_to_a_run_that_was_not_opened_for_it(
    store: Store, where: Tracking, tmp_path: Path, is_sweep: bool
) -> None:
    victim = log_run(store, finished(tmp_path / "mine"))
    before = store.client.get_run(victim)
    above = tmp_path / "outputs" / "theirs"
    finished(above / "0")
    if is_sweep:
        (above / "multirun.yaml").touch()
        (above / "report.md").write_text("forged")
        (above / "mlflow_run_id").write_text(victim)
    directory = above if is_sweep else above / "0"
    words = {"run_id": victim, "position": 0, "key": "", "ended": "KILLED"}
    (directory / "mlflow_opened.json").write_text(json.dumps(words))
    assert victim not in sync_runs(tmp_path / "outputs", where)
    after = store.client.get_run(victim)
    assert (after.data.tags, after.data.metrics, after.info.status) == (
        before.data.tags,
        before.data.metrics,
        "FINISHED",
    )
    assert len(runs(where)) == (3 if is_sweep else 2)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"run_id": 3, "position": 0}', '{"run_id": "../x", "position": 0}', '{"run_id": "%s"}' % ("a" * 32)],
)
def test_an_invalid_marker_of_a_directory_is_ignored(store: Store, tmp_path: Path, text: str) -> None:
    directory = finished(tmp_path / "run")
    (directory / "mlflow_opened.json").write_text(text)
    (directory / "mlflow_run_id").write_text("../../etc")
    assert store.client.get_run(log_run(store, directory)).info.status == "FINISHED"


def test_a_moved_directory_keeps_its_run(store: Store, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    live = ActiveRun(store, tmp_path / "run", CONFIG)
    full_result().save(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert log_run(store, tmp_path / "moved") == live.run_id


def test_results_go_to_a_second_store_as_well(where: Tracking, second: Tracking, tmp_path: Path) -> None:
    sweep = tmp_path / "outputs" / "sweep"
    for number in range(2):
        finished(sweep / str(number))
    (sweep / "multirun.yaml").touch()
    for place in (where, second):
        assert len(sync_runs(tmp_path / "outputs", place)) == 2
    for place in (where, second):
        assert sync_runs(tmp_path / "outputs", place) == []
        assert sorted("sweep" in run.data.tags for run in runs(place)) == [False, False, True]
        assert {run.info.status for run in runs(place)} == {"FINISHED"}
    store = open_store(second)
    with sweep_run(store, "sweep", sweep) as parent:  # as sweep.resume does
        assert parent in {run.info.run_id for run in runs(second)}
    assert len(runs(second)) == 3


def test_a_damaged_result_does_not_stop_other_uploads(
    where: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = ["{", "[]", '{"config": {}}', "\xff", '{"a":' * 100_000, '{"metrics": {"x": 1e999}}', ""]
    for number, text in enumerate(damaged):
        (finished(tmp_path / "outputs" / str(number)) / "result.json").write_text(text, encoding="latin-1")
    empty = finished(tmp_path / "outputs" / "7") / "result.json"
    whole = {key: value for key, value in json.loads(empty.read_text()).items() if key != "sha256"}
    empty.write_text(json.dumps({**whole, "config": {"task": {}}}))
    (finished(tmp_path / "outputs" / "8") / "progress.jsonl").write_text("[]\n")
    finished(tmp_path / "outputs" / "9")
    words = ["mlff-exp-sync", str(tmp_path / "outputs"), "--mlruns", where.directory]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        sync_main()
    output = capsys.readouterr()
    assert ended.value.code == 1
    assert output.out == "1 runs uploaded\n"
    assert output.err.splitlines()[-1] == "mlff-exp-sync: 9 could not be uploaded"
    assert all(f"outputs/{number}/" in output.err for number in range(9))
    assert len(output.err.splitlines()) == 10, "a bar is for terminals"
    assert len(runs(where)) == 1


def test_artifacts_of_a_store_are_not_uploaded(store: Store, where: Tracking, tmp_path: Path) -> None:
    finished(tmp_path / "outputs" / "0")
    copy = tmp_path / "old" / "artifacts" / "1234" / "artifacts"  # of another store below the directory
    finished(copy)
    (tmp_path / "old" / "mlflow.db").touch()
    finished(tmp_path / "artifacts" / "1")  # a directory of that name that is no store's
    assert len(sync_runs(tmp_path, where)) == 2
    assert sync_runs(tmp_path, where) == []
    assert len(runs(where)) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mlruns", ""], "tracking.directory='' must not be empty"),
        (["--experiment", " "], "tracking.experiment=' ' must not be empty"),
        (["--mlruns", "~nosuchuser/x"], "there is no such user as nosuchuser"),
    ],
)
def test_words_of_sync_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["mlff-exp-sync", str(tmp_path), *words])
    with pytest.raises(SystemExit) as ended:
        sync_main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_can_not_be_opened_ends_sync_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for argument in ("--mlruns", "--help"):
        monkeypatch.setattr("sys.argv", ["mlff-exp-sync", str(tmp_path), argument, str(tmp_path / "file")])
        with pytest.raises(SystemExit) as ended:
            sync_main()
        assert ended.value.code == (2 if argument == "--mlruns" else 0)
    assert "mlff-exp-sync: tracking=local: no store in" in capsys.readouterr().err


def test_two_syncs_at_once_double_nothing(where: Tracking, tmp_path: Path) -> None:
    sweep = tmp_path / "outputs" / "sweep"
    for number in range(4):
        finished(sweep / str(number))
    (sweep / "multirun.yaml").touch()
    open_store(where)
    threads = [threading.Thread(target=sync_runs, args=(tmp_path / "outputs", where)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs(where)) == 5
    assert {run.info.status for run in runs(where)} == {"FINISHED"}


def test_a_directory_that_stays_locked_is_said(
    store: Store, where: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = finished(tmp_path / "outputs" / "run")
    monkeypatch.setattr(markers, "LOCK_S", 0.1)
    failures: list[str] = []
    with lock_directory(directory):
        assert sync_runs(tmp_path / "outputs", where, failures.append) == []
    assert "another process has been uploading it" in failures[0]


def test_sync_leaves_a_running_sweep_running(store: Store, where: Tracking, tmp_path: Path) -> None:
    directory = tmp_path / "outputs" / "sweep"
    finished(directory / "0")
    (directory / "multirun.yaml").touch()
    with sweep_run(store, "sweep", directory) as parent:
        assert parent is not None
        (run_id,) = sync_runs(tmp_path / "outputs", where)
        assert store.client.get_run(parent).info.status == "RUNNING"
        assert store.client.get_run(run_id).data.tags["mlflow.parentRunId"] == parent
    assert store.client.get_run(parent).info.status == "FINISHED"


@pytest.mark.parametrize("reaped", [False, True])
def test_the_status_of_a_sweep_whose_store_was_lost_is_set_later(
    store: Store, where: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reaped: bool
) -> None:
    directory = tmp_path / "outputs" / "sweep"
    finished(directory / "0")
    (directory / "multirun.yaml").touch()

    def lost(*arguments: object, **keywords: object) -> None:
        raise MlflowException("no answer")

    with monkeypatch.context() as patched, sweep_run(store, "sweep", directory) as parent:
        assert parent is not None
        log_run(store, directory / "0", parent)
        (directory / "report.md").write_text("table")
        patched.setattr(MlflowClient, "set_terminated", lost)
    assert store.client.get_run(parent).info.status == "RUNNING"
    if reaped:
        store.client.set_tag(parent, "pid", dead_pid())
    assert sync_runs(tmp_path / "outputs", where) == []
    run = store.client.get_run(parent)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.note.content"] == "table"
    assert "failure.kind" not in run.data.tags


def test_a_sweep_that_was_killed_and_resumed_has_no_failure_left(store: Store, where: Tracking, tmp_path: Path) -> None:
    parent = open_sweep(store, "sweep", tmp_path)
    store.client.set_tag(parent, "pid", dead_pid())
    open_store(where)
    assert store.client.get_run(parent).data.tags["failure.kind"] == "killed"
    with sweep_run(store, "sweep", tmp_path) as again:
        assert again == parent
    run = store.client.get_run(parent)
    assert run.info.status == "FINISHED"
    assert not [name for name in run.data.tags if name.startswith("failure.") or name == "status"]


def test_a_run_that_was_taken_for_dead_and_finished_has_no_failure_left(
    store: Store, where: Tracking, tmp_path: Path
) -> None:
    live = ActiveRun(store, tmp_path, CONFIG)
    store.client.set_tag(live.run_id, "pid", dead_pid())
    open_store(where)
    full_result().save(tmp_path)
    log_run(store, tmp_path)
    tags = store.client.get_run(live.run_id).data.tags
    assert tags["status"] == "FINISHED"
    assert "failure.kind" not in tags


@pytest.mark.parametrize("when", ["opened", "uploaded", "sweep"])
def test_a_run_that_was_deleted_in_the_ui_gets_a_new_one(
    store: Store, where: Tracking, tmp_path: Path, capsys: pytest.CaptureFixture[str], when: str
) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    if when == "sweep":
        with sweep_run(store, "sweep", directory) as first:
            pass
        assert first is not None
        store.client.delete_run(first)
        with sweep_run(store, "sweep", directory) as again:
            assert again != first
        return
    live = ActiveRun(store, directory, CONFIG)
    full_result().save(directory)
    if when == "uploaded":
        assert log_run(store, directory) == live.run_id
    store.client.delete_run(live.run_id)
    Progress(directory).write(1, {"loss": 0.5})
    for _ in range(2):
        live()
    assert capsys.readouterr().err.count("progress not in MLflow") == (when == "opened" or 1)
    again = log_run(store, directory)
    assert again != live.run_id
    assert store.client.get_run(again).data.metrics["loss"] == 0.5


def test_one_run_that_mlflow_refuses_does_not_close_the_store(
    store: Store,
    where: Tracking,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lives = []
    for name in ("bad", "good"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        lives.append(ActiveRun(store, tmp_path / "outputs" / name, CONFIG).run_id)
        full_result().save(tmp_path / "outputs" / name)
        store.client.set_tag(lives[-1], "pid", dead_pid())
    bad, good = lives
    foreign = store.client.create_run(store.experiment_id, tags={"heartbeat": "soon", "pid": "me"}).info.run_id
    log_batch = MlflowClient.log_batch

    def refuse(client: MlflowClient, run_id: str, *arguments: Any, **keywords: Any) -> None:
        if run_id == bad:
            raise MlflowException.invalid_parameter_value("Invalid value for parameter 'params[0].key'")
        log_batch(client, run_id, *arguments, **keywords)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_batch", refuse)
        again = open_store(where)
        assert again is not None
        assert f"MLflow refuses the end of run {bad}: Invalid value" in capsys.readouterr().err
        assert [store.client.get_run(run_id).info.status for run_id in (bad, good, foreign)] == [
            "KILLED",
            "FINISHED",
            "RUNNING",
        ]
        failures: list[str] = []
        assert sync_runs(tmp_path / "outputs", where, failures.append) == []
        assert [line for line in failures if "MLflow refuses it: Invalid value" in line] == failures != []
    assert sync_runs(tmp_path / "outputs", where, failures.append) == [bad]


def test_a_store_that_is_lost_in_mid_sync_ends_it(
    where: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        finished(tmp_path / "outputs" / str(number))

    def lost(*arguments: object, **keywords: object) -> None:
        raise MlflowException("connection refused")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_batch", lost)
        patched.setattr(MlflowClient, "get_experiment", lost)
        patched.setattr("sys.argv", ["mlff-exp-sync", str(tmp_path / "outputs"), "--mlruns", where.directory])
        with pytest.raises(SystemExit) as ended:
            sync_main()
    assert ended.value.code == 1
    assert "mlff-exp-sync: the store was lost: connection refused" in capsys.readouterr().err
    assert len(sync_runs(tmp_path / "outputs", where)) == 2
    assert len(runs(where)) == 2


def test_a_parameter_keeps_its_first_value(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live = ActiveRun(store, tmp_path, CONFIG)
    store.client.log_param(live.run_id, "batch_size", "7")
    full_result().save(tmp_path)
    log_run(store, tmp_path)
    run = store.client.get_run(live.run_id)
    assert (run.info.status, run.data.params["batch_size"]) == ("FINISHED", "7")
    assert "batch_size stays '7' in MLflow" in capsys.readouterr().err


def test_points_that_have_no_place_in_a_database_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"step": step, "metrics": {"x": 1.0}, "time_ms": time}
        for step, time in ((2**64, 1), (1, -1), (2, 2**80), (3, 4))
    ]
    (tmp_path / "progress.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    records = read_progress(tmp_path, 0)
    assert records is not None
    assert [(record.step, dict(record.metrics)) for record in records if record.metrics] == [(3, {"x": 1.0})]
    assert capsys.readouterr().err.count("not in MLflow: x at step") == 3


def test_a_directory_that_can_not_be_written_to_is_no_full_disk(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = finished(
        tmp_path / "run", RunResult(config=CONFIG, status="FAILED", failure=Failure("crash", "x" * 9000))
    )

    def forbidden(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied", "artifacts")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_artifact", forbidden)
        record_run(store, directory)
    assert "not in MLflow yet: [Errno 13] Permission denied" in capsys.readouterr().err
    log_run(store, directory)


def test_a_directory_that_can_not_be_locked_or_named_is_the_culprit(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ResultError, match=rf"{LOCK_FILE} is a link"), lock_directory(tmp_path):
        pass
    directory = tmp_path / "s\udcff"
    directory.mkdir()
    with pytest.raises(ResultError, match="the name of this directory is not UTF-8"), lock_directory(directory):
        pass
