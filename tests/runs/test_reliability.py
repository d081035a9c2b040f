"""Load and faults, with real commands; `docs/reliability.md` has the figures that these tests print with ``-s``."""

from __future__ import annotations

import itertools
import random
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.entities import Run

from mlff_exp.config.config import Tracking
from mlff_exp.results.progress import Progress
from mlff_exp.results.result import RunResult
from mlff_exp.tracking.active import ActiveRun
from mlff_exp.tracking.recovery import open_store
from mlff_exp.tracking.sync import sync_runs
from mlff_exp.tracking.upload import log_run
from tests.helpers.results import CONFIG, full_result

pytestmark = pytest.mark.long

RUNS = 200
RUNS_OFFLINE = 20
POINTS = 20_000
RUNS_SIDE_BY_SIDE = 10
DISK_MIB = 8
# From no room for Hydra's own files, over none for MLflow's database, to none for the second run.
ROOMS_KIB = (0, 40, 150, 600)
# For no result; and for one that says that there was no room for a figure, unless a large diff is part of it.
ROOMS_OFFLINE_KIB = (8, 20)
KILLS = 30
CHEAP = [
    "task=inference",
    "system=water",
    "model.checkpoint=student_small",
    "engine=eager",
    "device=cpu",
    "task.min_calls=3",
    "task.min_time_s=0.001",
]


def start(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mlff_exp", *arguments, *CHEAP]
    return subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def timed(directory: Path, *arguments: str) -> float:
    """Seconds that a command took, which has to succeed."""
    started = time.monotonic()
    command = start(directory, *arguments)
    _, errors = command.communicate()
    assert command.returncode == 0, errors
    return time.monotonic() - started


def whole(directory: Path) -> list[Run]:
    """The runs of the store in a directory, after a next start: with every result once, and nothing RUNNING."""
    started = time.monotonic()
    store = open_store(Tracking(directory=str(directory / "mlruns")))
    assert store is not None
    print(f"the store opens in {time.monotonic() - started:.2f} s")
    with sqlite3.connect(directory / "mlruns" / "mlflow.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    runs = list(store.client.search_runs([store.experiment_id], max_results=10_000))
    assert "RUNNING" not in {run.info.status for run in runs}
    single = [run for run in runs if "sweep" not in run.data.tags]
    times = Counter(run.data.tags["directory"] for run in single)
    recorded = {run.data.tags["directory"]: run for run in single}
    for path in directory.glob("outputs/**/result.json"):
        result = RunResult.load(path.parent)
        assert times[str(path.parent)] == 1, path
        run = recorded[str(path.parent)]
        assert run.info.status == result.status, path
        assert run.data.metrics == pytest.approx(dict(result.metrics)), path
    return runs


def test_a_sweep_of_two_hundred_runs(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    seconds = timed(tmp_path, "-m", f"seed=range({RUNS})")
    own = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    runs = whole(tmp_path)
    (parent,) = (run for run in runs if "sweep" in run.data.tags)
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert [run.info.status for run in children] == ["FINISHED"] * RUNS
    assert {run.data.params["seed"] for run in children} == {str(seed) for seed in range(RUNS)}
    starts = sorted(run.info.start_time / 1000 for run in children)
    between = [after - before for before, after in itertools.pairwise(starts)]
    first, last = (statistics.median(part) for part in (between[:20], between[-20:]))
    (tmp_path / "offline").mkdir()
    offline = timed(tmp_path / "offline", "-m", f"seed=range({RUNS_OFFLINE})", "tracking=offline")
    print(f"{RUNS} runs: {seconds:.0f} s, {seconds / RUNS:.2f} s each; from start to start {first:.2f} s among the")
    print(f"first 20, {last:.2f} s among the last 20; besides the workers {own / RUNS:.2f} s of a core each;")
    print(f"tracking=offline {offline / RUNS_OFFLINE:.2f} s each")


def test_a_series_of_twenty_thousand_points(tmp_path: Path) -> None:
    store = open_store(Tracking(directory=str(tmp_path / "mlruns")))
    assert store is not None
    directory = tmp_path / "outputs" / "run"
    directory.mkdir(parents=True)
    live, progress = ActiveRun(store, directory, CONFIG), Progress(directory)
    started = time.monotonic()
    for step in range(POINTS // 2):
        progress.write(step, {"loss": step / 2})
    written = time.monotonic()
    live()
    logged = time.monotonic()
    for step in range(POINTS // 2, POINTS):
        progress.write(step, {"loss": step / 2})
    full_result().save(directory)
    uploading = time.monotonic()
    log_run(store, directory)
    ended = time.monotonic()
    assert [(metric.step, metric.value) for metric in store.client.get_metric_history(live.run_id, "loss")] == [
        (step, step / 2) for step in range(POINTS)
    ]
    print(f"{POINTS} points: {2 * (written - started):.1f} s to write; the first half in MLflow after")
    print(f"{logged - written:.1f} s, the rest with everything else {ended - uploading:.1f} s")


def test_two_sweeps_at_once_on_one_store(tmp_path: Path) -> None:
    sweeps = [start(tmp_path, "-m", f"seed=range({RUNS_SIDE_BY_SIDE})", f"batch_size={size}") for size in (1, 2)]
    for sweep in sweeps:
        _, errors = sweep.communicate()
        assert sweep.returncode == 0, errors
        assert "not in MLflow" not in errors
    runs = whole(tmp_path)
    parents = [run for run in runs if "sweep" in run.data.tags]
    assert len({run.data.tags["directory"] for run in parents}) == 2
    of = Counter(run.data.tags["mlflow.parentRunId"] for run in runs if run not in parents)
    assert of == {parent.info.run_id: RUNS_SIDE_BY_SIDE for parent in parents}
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", disk], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def run_on_full_disk(disk: Path, room_kib: int, *arguments: str) -> None:
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - 1024 * room_kib))
    command = start(disk, *arguments)
    output, errors = command.communicate()
    filler.unlink()
    assert command.returncode in (1, 2), errors
    assert "Traceback" not in errors
    *_, said = (line for line in (output + errors).splitlines() if line.startswith(("mlff-exp: ", "FAILED: ")))
    full = said.endswith((": OSError: [Errno 28] No space left on device", "disk is full; what had finished is kept"))
    assert "MiB are free there" in said or full
    print(f"{room_kib} KiB left, exit code {command.returncode}: {said}")


def test_a_full_disk_is_said_and_loses_nothing(small_disk: Path) -> None:
    timed(small_disk)
    (earlier,) = whole(small_disk)
    for room_kib in ROOMS_KIB:
        run_on_full_disk(small_disk, room_kib, "-m", "seed=0,1")
    for room_kib in ROOMS_OFFLINE_KIB:
        run_on_full_disk(small_disk, room_kib, "tracking=offline")
    print(f"left: {sorted(path.name for path in small_disk.rglob('*.partial'))}, ", end="")
    sync_runs(small_disk / "outputs", Tracking(directory=str(small_disk / "mlruns")))
    statuses = Counter(run.info.status for run in whole(small_disk))
    print(f"in MLflow: {dict(statuses)}")
    assert earlier.info.run_id in {run.info.run_id for run in whole(small_disk) if run.info.status == "FINISHED"}

    interrupted = max(small_disk.glob("outputs/*/*_sweep"))
    timed(small_disk, "-m", "seed=0,1", f"sweep.resume={interrupted}")
    assert [RunResult.load(interrupted / number).status for number in "01"] == ["FINISHED", "FINISHED"]
    whole(small_disk)


def test_kills_at_random_moments_lose_nothing_that_had_finished(tmp_path: Path) -> None:
    (tmp_path / "undisturbed").mkdir()
    longest = timed(tmp_path / "undisturbed", "-m", "seed=0,1")
    disturbed = tmp_path / "disturbed"
    disturbed.mkdir()
    moments = random.Random(0)
    ended = 0
    for _ in range(KILLS):
        command = start(disturbed, "-m", "seed=0,1")
        try:
            command.communicate(timeout=moments.uniform(0, longest))
            ended += 1
        except subprocess.TimeoutExpired:
            command.kill()
            command.communicate()
    runs = whole(disturbed)
    finished = [run for run in runs if run.info.status == "FINISHED" and "sweep" not in run.data.tags]
    reaped = [run for run in runs if run.data.tags.get("failure.message") == "the process ended without a word"]
    assert finished
    assert reaped
    assert len(finished) == len(list(disturbed.glob("outputs/**/result.json")))
    print(f"{KILLS} sweeps, killed within {longest:.0f} s: {ended} had ended, {len(reaped)} records were closed at a")
    print(f"later start, {len(finished)} runs had finished and are there once")
