"""The command as its users call it, in a directory of their own."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ase.build import molecule

from mlff_exp.cli import app
from mlff_exp.cli.app import main
from mlff_exp.cli.sync import sync_main
from mlff_exp.config.config import Tracking
from mlff_exp.config.errors import ConfigError
from mlff_exp.results.naming import label
from mlff_exp.results.result import ResultError, RunResult
from mlff_exp.tracking.sync import sync_runs
from tests.helpers.command import (
    INFERENCE,
    NVE,
    ROOT,
    SMALL,
    _runs,
    _wait_for_worker,
    assert_worker_ends_with,
    mlff_exp,
    results,
)
from tests.helpers.here import resolved_of, run_here, undocumented
from tests.helpers.refused import said_against
from tests.helpers.results import full_result


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The result of NVE, with the configuration that a command records."""
    return replace(run_here(tmp_path_factory.mktemp("nve"), *NVE), config=resolved_of(*NVE))


def test_help_says_how_to_use_it(tmp_path: Path) -> None:
    finished = mlff_exp(tmp_path, "--help")
    assert finished.returncode == 0
    for words in (
        "mlff-exp -m engine=eager,compile",
        "experiment=quickstart",
        "precision: bf16_autocast",
        "Exit codes",
    ):
        assert words in finished.stdout


def test_cfg_shows_the_configuration_and_runs_nothing(tmp_path: Path) -> None:
    finished = mlff_exp(tmp_path, "--cfg", "job", "batch_size=7")
    assert finished.returncode == 0
    assert "batch_size: 7" in finished.stdout
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize(
    ("what", "words"),
    [("defaults", "| precision/fp32 "), ("searchpath", "| command-line | file://"), ("config", "batch_size: 7")],
)
def test_info_shows_how_hydra_sees_it_and_runs_nothing(tmp_path: Path, what: str, words: str) -> None:
    (tmp_path / "mine").mkdir()
    finished = mlff_exp(tmp_path, "-cd", "mine", "--info", what, "batch_size=7")
    assert finished.returncode == 0, finished.stderr
    assert words in finished.stdout
    assert finished.stderr == ""
    assert sorted(tmp_path.iterdir()) == [tmp_path / "mine"]


def test_the_shell_completes_options_keys_and_experiments(tmp_path: Path) -> None:
    command = tmp_path / "mlff-exp"
    command.write_text(f"#!{sys.executable}\nfrom mlff_exp.__main__ import main\nmain()\n")
    command.chmod(0o755)
    lines = ("mlff-exp engine=", "mlff-exp -m system=wa", "mlff-exp task=nve task.dur", "mlff-exp experiment=ph")
    # As bash calls it when somebody presses tab.
    script = """
        eval "$(mlff-exp -sc install=bash)"
        for COMP_LINE in "$@"; do
            COMP_WORDS=($COMP_LINE) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_POINT=${#COMP_LINE}
            hydra_bash_completion
            echo "${COMPREPLY[@]}"
        done
        complete -p mlff-exp
    """
    finished = subprocess.run(
        ["bash", "-c", script, "bash", *lines],
        cwd=tmp_path, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert finished.stderr == ""
    *offered, installed = finished.stdout.splitlines()
    assert offered == [
        "engine=compile engine=cuda_graph engine=eager engine=fused",
        "system=water system=water_box",
        "task.duration_ps=",
        "experiment=phase1",
    ]
    assert installed.endswith("-F hydra_bash_completion mlff-exp")


def test_a_directory_of_ones_own_adds_options_to_those_that_are_there(tmp_path: Path) -> None:
    for name, text in {
        "system/mine": "defaults: [/schema/system/file@_here_, _self_]\npath: mine.xyz\n",
        "experiment/mine": "# @package _global_\ndefaults: [override /system: mine]\nbatch_size: 3\nseed: 4\n",
    }.items():
        path = tmp_path / "mine" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (tmp_path / "mine.xyz").write_text("3\n\nO 0 0 0\nH 0 0 1\nH 0 1 0\n")
    ours = mlff_exp(tmp_path, "-cd", "mine", "experiment=mine", "batch_size=5", "--cfg", "job")
    assert ours.returncode == 0, ours.stderr
    config = yaml.safe_load(ours.stdout)
    assert config["system"] == {"name": "file", "path": "mine.xyz", "index": -1, "ignore_charge": False}
    assert (config["batch_size"], config["seed"], config["engine"]["name"]) == (5, 4, "compile")
    theirs = mlff_exp(tmp_path, "-cd", "mine", "experiment=mine", "system=water", "--cfg", "job")
    assert yaml.safe_load(theirs.stdout)["system"] == {"name": "water"}
    nowhere = mlff_exp(tmp_path, "-cd", "nowhere", "--cfg", "job")
    assert nowhere.returncode == 2
    assert "nowhere' not found" in nowhere.stderr
    assert "Traceback" not in nowhere.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_size=0", "batch_size=0 must be greater than 0"),
        ("bach_size=1", "did you mean 'batch_size'?"),
        ("system=benzen", "Available options in 'system'"),
        ("device=cpu engine=cuda_graph", "on device=cpu use one of: eager, compile"),
        ("device=cpu task=nve batch_size=2", "batch_size=2: task=nve takes no batch_size"),
        ("experiment=nve_gate device=cpu engine=fused", "the gate of stage 'stability' can't run: engine=fused needs"),
    ],
)
@pytest.mark.parametrize("multirun", [False, True])
def test_a_bad_configuration_is_refused_before_anything_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    override: str,
    message: str,
    multirun: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = ["-m", "seed=0,1"] if multirun else []
    assert message in said_against(capsys, monkeypatch, *sweep, *override.split())
    assert results(tmp_path) == []
    assert not (tmp_path / "mlruns").exists(), "opening the store takes seconds"


def test_a_directory_that_holds_a_result_is_refused(tmp_path: Path) -> None:
    earlier = full_result().save(tmp_path)
    before = earlier.read_bytes()
    finished = mlff_exp(tmp_path, *INFERENCE, "tracking=offline", "hydra.run.dir=.")
    assert finished.returncode == 2
    assert f"{earlier} is the result of another run" in finished.stderr
    assert earlier.read_bytes() == before


@pytest.mark.slow
def test_a_run_leaves_its_result_and_an_mlflow_run(tmp_path: Path) -> None:
    finished = mlff_exp(tmp_path, *INFERENCE, SMALL, "batch_size=2")
    assert finished.returncode == 0, finished.stderr
    (result,) = results(tmp_path)
    assert result.status == "FINISHED"
    assert result.config["batch_size"] == 2
    assert result.metrics["graph_breaks"] == result.metrics["recompiles"] == 0
    for name in (
        "speedup_vs_baseline", "speedup_vs_fp32", "speedup_vs_single_eager", "control_same", "control_slower"
    ):  # fmt: skip
        low, value, high = (result.metrics[name + end] for end in ("_ci_low", "", "_ci_high"))
        assert 0 < low <= value * (1 + 1e-9)
        assert value <= high * (1 + 1e-9)
    assert result.metrics["force_relative_rmse_vs_fp64_percent"] < 0.01
    assert len(result.timing["engine"].values_ms) >= 10
    assert undocumented(result) == set()
    assert "mlflow.db" in finished.stdout

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    (run,) = client.search_runs(["1"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["latency_median_ms"] == result.metrics["latency_median_ms"]
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert names == {"result.json", "config.yaml", "samples.npz", "latency.png"}


@pytest.mark.slow
def test_nve_exits_with_its_verdict(tmp_path: Path, moved: RunResult) -> None:
    no_go = mlff_exp(
        tmp_path,
        *NVE,
        "system=water",
        "gate.criteria.temperature_mean_k.min=0",
        "gate.criteria.temperature_mean_k.max=10",
        "tracking=offline",
    )
    assert no_go.returncode == 3
    assert "NO-GO: temperature_mean_k is " in no_go.stdout
    (second,) = results(tmp_path)
    assert moved.verdict is not None
    assert second.verdict is not None
    assert (moved.verdict.decision, second.verdict.decision) == ("GO", "NO-GO")
    assert second.status == "FINISHED"
    assert second.verdict.reasons[0].startswith("temperature_mean_k is ")
    assert set(moved.artifacts) == {
        "validation_report.txt", "quick_md_validation.png", "trajectory_data.npz", "frames_benzene.extxyz"
    }  # fmt: skip
    assert moved.metrics["momentum_error"] < 1e-10
    assert moved.metrics["finite_difference_error_ev_per_ang"] < 1e-4


@pytest.mark.slow
def test_systems_side_by_side_are_each_judged(tmp_path: Path) -> None:
    limits = ["gate.criteria.temperature_mean_k.min=0", "gate.criteria.temperature_mean_k.max=10000"]
    words = ["task.systems=[water,ammonia]", "task.replicas=2", "tracking=offline", *limits]
    finished = mlff_exp(tmp_path, *NVE, *words)
    assert finished.returncode == 0, finished.stderr
    (result,) = results(tmp_path)
    assert result.verdict is not None
    assert {criterion.metric for criterion in result.verdict.criteria} == {
        f"{metric}/{name}"
        for metric in ("energy_drift_percent", "energy_fluctuation_percent", "temperature_mean_k")
        for name in ("water", "ammonia")
    }
    assert result.metrics["temperature_mean_k/water"] != result.metrics["temperature_mean_k/ammonia"]
    (report,) = tmp_path.glob("outputs/**/validation_report.txt")
    assert report.read_text().count("Decision (gate=plan, 2 starts): GO") == 2


@pytest.mark.slow
def test_stages_skip_what_cannot_run_stop_at_a_gate_and_are_uploaded_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tmp_path / "mine" / "experiment" / "tiny.yaml"
    experiment.parent.mkdir(parents=True)
    stages = [
        {"name": "arithmetic", "overrides": [*INFERENCE, SMALL, "precision=tf32,fp32"]},
        {
            "name": "stability",
            "gate": True,
            "overrides": [*NVE, "gate.criteria.temperature_mean_k.min=0", "gate.criteria.temperature_mean_k.max=10"],
        },
        {"name": "never", "overrides": [*INFERENCE, SMALL, "batch_size=64"]},
    ]
    sweep = {"sweep": {"name": "tiny", "stages": stages}, "hydra": {"mode": "MULTIRUN"}}
    experiment.write_text("# @package _global_\n" + json.dumps(sweep))
    finished = mlff_exp(tmp_path, "-cd", "mine", "experiment=tiny", "tracking=offline", "seed=5")
    assert finished.returncode == 3, finished.stdout + finished.stderr
    skipped, timed, gate = results(tmp_path)
    assert skipped.status == "SKIPPED"
    assert skipped.failure is not None
    assert "needs a CUDA GPU" in skipped.failure.message
    assert (timed.status, timed.config["precision"]["name"]) == ("FINISHED", "fp32")
    assert gate.verdict is not None
    assert gate.verdict.decision == "NO-GO"
    assert {result.config["seed"] for result in (skipped, timed, gate)} == {5}
    assert "the stages after the gate are not run" in finished.stdout

    assert not (tmp_path / "mlruns").exists()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mlff-exp-sync", "outputs"])
    sync_main()
    sync_main()
    assert capsys.readouterr().out == "3 runs uploaded\n0 runs uploaded\n"


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_failure_and_later_with_what_is_missing(
    mlruns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_bytes(b"not a checkpoint")
    words = ["-m", *INFERENCE, "model.checkpoint=mine,student_small"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mlff-exp", *words, "sweep.budget_s=1e-6"])
    with pytest.raises(SystemExit, match="4"):
        main()
    (directory,) = tmp_path.glob("outputs/*/*")
    assert f"2 runs are left; to go on: sweep.resume={directory}" in capsys.readouterr().out
    failed = mlff_exp(tmp_path, *words, f"sweep.resume={directory}")
    assert failed.returncode == 1, failed.stderr
    assert "neither a safetensors nor a PyTorch checkpoint" in failed.stderr
    assert [result.status for result in results(tmp_path)] == ["FAILED", "FINISHED"]

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{mlruns}/mlflow.db")
    runs = client.search_runs(["1"])
    (parent,) = [run.info.run_id for run in runs if "sweep" in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent]
    assert sorted(run.info.status for run in children) == ["FAILED", "FINISHED"]
    assert len(runs) == 3
    page = (directory / "report.html").read_text()
    # Besides two runs: a heading, two controls, and tables of promises and of the machine.
    assert page.count('<tr class="failed">') == 1
    assert page.count('<tr class="control">') == 2
    assert 'src="data:image/png;base64,' in page

    finished = (directory / "1" / "result.json").stat().st_mtime_ns
    (tmp_path / "mine").write_bytes((ROOT / "mlff_exp" / "checkpoints" / "student_small.safetensors").read_bytes())
    resumed = mlff_exp(tmp_path, *words, f"sweep.resume={parent}")
    assert resumed.returncode == 0, resumed.stderr
    assert (directory / "1" / "result.json").stat().st_mtime_ns == finished
    assert [RunResult.load(directory / str(number)).status for number in range(2)] == ["FINISHED"] * 2
    assert (directory / "report.md").read_text().count("FINISHED") == 2
    runs = client.search_runs(["1"])
    assert sorted(run.info.status for run in runs) == ["FAILED"] + ["FINISHED"] * 3
    assert {run.data.tags["mlflow.parentRunId"] for run in runs if run.info.run_id != parent} == {parent}

    for wrong, message in (
        (("seed=7", f"sweep.resume={parent}"), "run 0 was another one: seed: 0 → 7"),
        ((f"sweep.resume={tmp_path}",), f"sweep.resume={tmp_path}: no sweep began there"),
    ):
        monkeypatch.setattr(sys, "argv", ["mlff-exp", *words, *wrong])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert message in capsys.readouterr().err
    # A resumed sweep leaves no directory of its own that could be taken for the sweep's.
    assert list(tmp_path.glob("outputs/*/*")) == [directory]


# Force fields that end badly for as long as there is a file beside them.
TROUBLE = """
import os, pathlib, signal, time
import numpy as np
from ase.calculators.lj import LennardJones

class Trouble(LennardJones):
    def calculate(self, *arguments):
        if pathlib.Path(__file__).with_name("trouble").exists():
            self.end()
        super().calculate(*arguments)

class Killed(Trouble):
    def end(self):
        os.kill(os.getpid(), signal.SIGKILL)

class Large(Trouble):
    def end(self):
        np.empty(2**59)

class Slow(Trouble):
    def end(self):
        time.sleep(600)
"""


def make_trouble(directory: Path, **kinds: float) -> list[str]:
    """Words for a sweep: a run of ours, one of each kind of trouble with its ``timeout_s``, and another of ours."""
    (directory / "trouble.py").write_text(TROUBLE)
    (directory / "trouble").touch()
    words = [word for word in INFERENCE if not word.startswith("engine=")]
    ours = [*INFERENCE, SMALL]
    theirs = [*words, "model=ase"]
    stages = [
        {"name": "before", "overrides": ours},
        *(
            {
                "name": kind,
                "overrides": [*theirs, f"model.calculator._target_=trouble.{kind}", f"timeout_s={timeout_s}"],
            }
            for kind, timeout_s in kinds.items()
        ),
        {"name": "after", "overrides": [*ours, "batch_size=2"]},
    ]
    experiment = directory / "mine" / "experiment" / "trouble.yaml"
    experiment.parent.mkdir(parents=True)
    sweep = {"sweep": {"name": "trouble", "stages": stages}, "hydra": {"mode": "MULTIRUN"}}
    experiment.write_text("# @package _global_\n" + json.dumps(sweep))
    return ["-cd", "mine", "experiment=trouble", "tracking=offline", "trust=[trouble]"]


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_kill_a_timeout_and_out_of_memory(tmp_path: Path) -> None:
    words = make_trouble(tmp_path, Killed=60, Slow=3, Large=60)
    finished = mlff_exp(tmp_path, *words)
    assert finished.returncode == 1, finished.stdout + finished.stderr
    ended = results(tmp_path)
    assert [result.status for result in ended] == ["FINISHED", "KILLED", "KILLED", "FAILED", "FINISHED"]
    kinds = [result.failure.kind for result in ended if result.failure is not None]
    assert kinds == ["killed", "timeout", "out_of_memory"]
    said = [line for line in finished.stderr.splitlines() if line.startswith(("FAILED", "KILLED"))]
    assert [line.split(": ")[2] for line in said] == kinds
    (directory,) = tmp_path.glob("outputs/*/*")
    lines = (directory / "report.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| inference")]
    column = next(line for line in lines if line.startswith("| run |")).split(" | ").index("status")
    statuses = [row.split(" | ")[column] for row in rows]
    assert statuses == [result.status for result in ended]
    assert [kind in row for kind, row in zip(kinds, rows[1:4], strict=True)] == [True] * 3

    (tmp_path / "trouble").unlink()
    untouched = [directory / number / "result.json" for number in ("0", "4")]
    before = [path.stat().st_mtime_ns for path in untouched]
    resumed = mlff_exp(tmp_path, *words, "timeout_s=60", f"sweep.resume={directory}")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert [RunResult.load(directory / number).status for number in "01234"] == ["FINISHED"] * 5
    assert [path.stat().st_mtime_ns for path in untouched] == before
    assert (directory / "report.md").read_text().count("FINISHED") == 5


@pytest.mark.slow
@pytest.mark.parametrize("everybody", [True, False], ids=["group", "command"])
def test_an_interrupt_ends_a_sweep_and_keeps_what_had_finished(tmp_path: Path, *, everybody: bool) -> None:
    """From a keyboard it goes to all processes of the terminal."""
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlff_exp", *make_trouble(tmp_path, Slow=60)],
            cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=errors,
            preexec_fn=hear_interrupts, start_new_session=True,
        )  # fmt: skip
    try:
        while not list(tmp_path.glob("outputs/*/*/1/config.yaml")):
            assert process.poll() is None
            time.sleep(0.05)
        worker = _wait_for_worker(process.pid)
        (os.killpg if everybody else os.kill)(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
    finished, interrupted = results(tmp_path)
    assert (finished.status, interrupted.status) == ("FINISHED", "KILLED")
    assert interrupted.failure is not None
    assert interrupted.failure.kind == "interrupted"
    assert not _runs(worker)
    (directory,) = tmp_path.glob("outputs/*/*")
    assert f"to go on: sweep.resume={directory}" in (tmp_path / "errors").read_text()


@pytest.mark.slow
def test_files_of_ones_own_can_be_swept_over(tmp_path: Path) -> None:
    """A path has no default: there is no configuration without the values that are swept over."""
    for name in ("H2O", "CH4"):
        molecule(name).write(tmp_path / f"my.{name}.xyz")
    words = [word for word in INFERENCE if not word.startswith("system=")]
    finished = mlff_exp(
        tmp_path, "-m", *words, SMALL, "tracking=offline",
        "system=file", "system.path=my.H2O.xyz,my.CH4.xyz",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert [label(result.config) for result in results(tmp_path)] == [
        "inference · my.H2O · student_small · eager · fp32 · B1",
        "inference · my.CH4 · student_small · eager · fp32 · B1",
    ]


def test_an_experiment_that_wants_a_go_stops_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["experiment=batch_scaling", "device=cpu", "tracking=offline", "sweep.parameters.batch_sizes=2"]
    said = said_against(capsys, monkeypatch, *words)
    assert "batch_scaling wants a GO of gate=strict for student (" in said
    assert "on system name=benzene, over 100 ps" in said
    assert "run experiment=nve_gate on this system first, or say gate=off" in said
    assert results(tmp_path) == []


@pytest.mark.slow
def test_a_go_opens_the_experiment_and_is_written_on_its_runs(mlruns: Path, tmp_path: Path, moved: RunResult) -> None:
    # A GO counts from 100 ps on, which take too long here.
    long = {**moved.config, "task": {**moved.config["task"], "duration_ps": 100.0}}
    directory = tmp_path / "outputs" / "nve"
    directory.mkdir(parents=True)
    replace(moved, config=long, artifacts=[]).save(directory)
    sync_runs(directory, Tracking(directory=str(mlruns)))

    sizes = ["sweep.parameters.batch_sizes=2", "sweep.parameters.min_calls=10", "sweep.parameters.min_time_s=0.01"]
    words = ["experiment=batch_scaling", "device=cpu", "engine=eager", "precision=fp32", *sizes]
    finished = mlff_exp(tmp_path, *words, "model.checkpoint=student_small", "gate=plan")
    assert finished.returncode == 0, finished.stderr

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{mlruns}/mlflow.db")
    timed = client.search_runs(["1"], "tags.task = 'inference'")
    assert [run.data.tags["gate.decision"] for run in timed] == ["GO"]
    assert [run.data.params["batch_size"] for run in timed] == ["2"]
    (weights,) = client.search_logged_models(["1"])
    assert weights.tags["verdict.plan.benzene.fp32"] == "GO"


def long_run(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "mlff_exp", *NVE, "task.duration_ps=100", "tracking=offline", *overrides]


def test_a_timeout_is_a_result(tmp_path: Path) -> None:
    finished = subprocess.run(long_run("timeout_s=1"), cwd=tmp_path, capture_output=True, text=True, timeout=90)
    assert finished.returncode == 1
    (result,) = results(tmp_path)
    assert result.status == "KILLED"
    assert result.duration_s is not None
    assert result.duration_s >= 1
    assert result.failure is not None
    assert (result.failure.kind, result.failure.message) == ("timeout", "stopped after timeout_s=1")
    said = f"KILLED: {label(result.config)}: timeout: stopped after timeout_s=1"
    assert [line for line in finished.stdout.splitlines() if label(result.config) in line] == [said]


@pytest.mark.parametrize(
    ("number", "code", "kind"),
    [(signal.SIGKILL, 1, "killed"), (signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_killed_or_interrupted_run_is_a_result(tmp_path: Path, number: signal.Signals, code: int, kind: str) -> None:
    process = subprocess.Popen(
        long_run(), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=hear_interrupts
    )
    try:
        worker = _wait_for_worker(process.pid)
        os.kill(worker if number is signal.SIGKILL else process.pid, number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, errors
    (result,) = results(tmp_path)
    assert result.status == "KILLED"
    assert result.failure is not None
    assert result.failure.kind == kind
    assert not Path(f"/proc/{worker}").exists()


def hear_interrupts() -> None:
    """A shell makes background jobs deaf to them, and these tests may run in one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_worker_ends_with_the_command_that_started_it(tmp_path: Path) -> None:
    # Not into pipes: a worker also ends when nobody reads what it says.
    process = subprocess.Popen(long_run(), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert_worker_ends_with(process)


def test_a_full_disk_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "result.json"))

    def broken() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "x")

    monkeypatch.setattr(sys, "argv", ["mlff-exp"])
    monkeypatch.setattr(app, "run", full)
    with pytest.raises(SystemExit, match="1"):
        main()
    assert f"mlff-exp: No space left on device: {tmp_path}/result.json; " in capsys.readouterr().err

    def store_full() -> None:
        raise OSError(errno.EIO, "MLflow's store: database or disk is full")

    monkeypatch.setattr(app, "run", store_full)
    with pytest.raises(SystemExit, match="1"):
        main()
    assert capsys.readouterr().err == (
        "mlff-exp: MLflow's store: database or disk is full; what had finished is kept\n"
    ), "the current directory is on another disk"
    monkeypatch.setattr(app, "run", broken)
    with pytest.raises(FileNotFoundError):
        main()


@pytest.mark.parametrize("error", [ConfigError, ResultError])
@pytest.mark.parametrize("asked", [None, "0", "1"])
def test_the_environment_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: str | None, error: type[Exception]
) -> None:
    """Commands that are started later would print tracebacks and end with another code."""

    def refused() -> None:
        assert os.environ["HYDRA_FULL_ERROR"] == "1"
        raise error("batch_size=0")

    before = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    before |= {} if asked is None else {"HYDRA_FULL_ERROR": asked}
    monkeypatch.setattr(os, "environ", before)
    monkeypatch.setattr(sys, "argv", ["mlff-exp"])
    monkeypatch.setattr(app, "run", refused)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert os.environ.get("HYDRA_FULL_ERROR") == asked
    errors = capsys.readouterr().err
    assert errors.endswith("mlff-exp: batch_size=0\n")
    assert ("Traceback" in errors) == (asked == "1")


@pytest.mark.slow
def test_the_wheel_runs_in_another_directory(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for command in (
        ("build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)),
        ("pip", "install", "--quiet", "--no-deps", "--target", str(site), "WHEEL"),
    ):
        words = [str(next(tmp_path.glob("*.whl"))) if word == "WHEEL" else word for word in command]
        subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True, cwd=tmp_path, timeout=120)
    # Before the checkout on the path of imports; -P keeps the current directory from it.
    environment = {**os.environ, "PYTHONPATH": str(site)}
    script = "import mlff_exp, sys; print(mlff_exp.__file__); from mlff_exp.__main__ import main; main()"
    finished = subprocess.run(
        [sys.executable, "-P", "-c", script, *INFERENCE, SMALL, "tracking=offline"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith(str(site))
    assert [result.status for result in results(tmp_path)] == ["FINISHED"]
