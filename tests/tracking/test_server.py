"""A real tracking server on PostgreSQL, started here where its programs are installed."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlff_exp.cli.sync import sync_main
from mlff_exp.config.config import Tracking
from mlff_exp.results.result import RunResult
from mlff_exp.tracking.recovery import open_store
from mlff_exp.tracking.upload import log_run
from tests.helpers.command import INFERENCE, SMALL, mlff_exp, results
from tests.helpers.server import free_port
from tests.helpers.store import finished, processes

pytestmark = pytest.mark.xdist_group("server")


def program(name: str) -> str:
    """Debian keeps PostgreSQL's programs out of the path."""
    candidates = [shutil.which(name), *map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))]
    found = [candidate for candidate in candidates if candidate]
    if not found:
        pytest.skip(f"PostgreSQL is not installed: no {name}")
    return found[-1]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an empty PostgreSQL database."""
    pytest.importorskip("psycopg")
    initdb, postgres, createdb = (program(name) for name in ("initdb", "postgres", "createdb"))
    directory, port = tmp_path_factory.mktemp("postgres"), free_port()
    # PostgreSQL refuses to run as root.
    who = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    if who:
        for path in directory.parents:  # of which some are root's alone
            if not (mode := path.stat().st_mode) & 0o001:
                path.chmod(mode | 0o001)
        shutil.chown(directory, "postgres", "postgres")
    data = directory / "data"
    words = [initdb, "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
    subprocess.run(words, check=True, capture_output=True, cwd=directory, **who)  # type: ignore[call-overload]
    command = [postgres, "-D", data, "-p", str(port), "-k", directory, "-c", "listen_addresses=127.0.0.1", "-F"]
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log, **who)  # type: ignore[call-overload]
    try:
        for _ in range(100):
            made = subprocess.run(
                [createdb, "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "mlflow"], capture_output=True
            )
            if made.returncode == 0:
                break
            time.sleep(0.2)
        assert made.returncode == 0, made.stderr
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/mlflow"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)


class Server:
    """`mlflow server`; may be stopped and started again."""

    def __init__(self, database: str, directory: Path) -> None:
        self.database, self.directory, self.port = database, directory, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["server", "--backend-store-uri", self.database, "--artifacts-destination", str(self.directory)]
        words += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *words], stdout=log, stderr=log, start_new_session=True,
                # Without its processes for jobs, which nobody gives it and which take longer to start than the server.
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )  # fmt: skip
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            time.sleep(0.2)
        raise AssertionError((self.directory / "log").read_text()[-3000:])

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def running(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(database, tmp_path_factory.mktemp("server"))
    found.start()
    yield found
    found.stop()


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.uri)
    return running


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's client tries again as often as ever when there is no answer, without the seconds in between."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")


def _upload(uri: str, directory: str, number: int) -> list[str]:
    os.environ["MLFLOW_TRACKING_URI"] = uri
    store = open_store(Tracking(name="server", experiment="together"))
    assert store is not None
    return [log_run(store, finished(Path(directory) / f"{number}-{run}")) for run in range(3)]


def test_four_processes_write_at_once_and_nothing_is_lost(server: Server, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    with concurrent.futures.ProcessPoolExecutor(4, mp_context=processes()) as pool:
        uploads = [pool.submit(_upload, server.uri, str(tmp_path), number) for number in range(4)]
        ids = [run_id for upload in uploads for run_id in upload.result()]
    client = MlflowClient(tracking_uri=server.uri)
    (experiment,) = [found for found in client.search_experiments() if found.name == "together"]
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    assert {run.info.run_id for run in runs} == set(ids)
    assert len(ids) == 12
    assert all(run.info.status == "FINISHED" and run.data.metrics["latency_median_ms"] == 1.25 for run in runs)
    assert {item.path for item in client.list_artifacts(ids[0])} == {"result.json", "config.yaml", "latency.png"}


@pytest.mark.usefixtures("hasty")
def test_a_server_that_does_not_answer_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    refused = mlff_exp(tmp_path, *INFERENCE, "tracking=server")
    assert refused.returncode == 2
    assert "tracking=server: no answer from the server at MLFLOW_TRACKING_URI" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert results(tmp_path) == []


@pytest.mark.usefixtures("hasty")
def test_a_server_lost_in_mid_run_loses_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    words = [
        "-m",
        *INFERENCE,
        SMALL,
        "tracking=server",
        "tracking.experiment=lost",
        "batch_size=1,2",
    ]
    command = [sys.executable, "-m", "mlff_exp", *words]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    client = MlflowClient(tracking_uri=server.uri)

    def runs() -> list[object]:
        found = [found for found in client.search_experiments() if found.name == "lost"]
        return list(client.search_runs([found[0].experiment_id])) if found else []

    for _ in range(600):
        if len(runs()) == 2:  # the parent and the first child
            break
        time.sleep(0.1)
    server.stop()
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output + errors
    assert "later: mlff-exp-sync" in errors
    assert [result.status for result in results(tmp_path)] == ["FINISHED", "FINISHED"]

    missed = [path for path in tmp_path.glob("outputs/*/*/[01]") if not (path / "mlflow_run_id").is_file()]
    assert missed
    server.start()
    monkeypatch.chdir(tmp_path)
    words = ["outputs", "--tracking", "server", "--experiment", "lost"]
    monkeypatch.setattr(sys, "argv", ["mlff-exp-sync", *words])
    sync_main()
    sync_main()
    assert capsys.readouterr().out == f"{len(missed)} runs uploaded\n0 runs uploaded\n"
    statuses = sorted(run.info.status for run in client.search_runs(_experiments(client)))
    assert statuses == ["FINISHED"] * 3
    for path in tmp_path.glob("outputs/*/*/[01]"):
        run = client.get_run((path / "mlflow_run_id").read_text())
        assert run.data.metrics["latency_median_ms"] == RunResult.load(path).metrics["latency_median_ms"]


def _experiments(client: object) -> list[str]:
    found = client.search_experiments()  # type: ignore[attr-defined]
    return [one.experiment_id for one in found if one.name == "lost"]
