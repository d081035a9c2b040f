"""The jobs of a sweep, and when a sweep stops."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.utils import JobReturn, JobStatus
from mlflow.exceptions import MlflowException

from mlff_exp.cli.app import _reached
from mlff_exp.cli.sweeping import HydraHost, place_sweep
from mlff_exp.cli.words import without_hydra
from mlff_exp.common.progress import ProgressLines
from mlff_exp.config.config import Sweep, parse_config
from mlff_exp.config.errors import ConfigError, UnavailableError
from mlff_exp.models.checkpoint import load_checkpoint
from mlff_exp.results.failure import Failure
from mlff_exp.results.result import RunResult, Status
from mlff_exp.results.verdict import Verdict
from mlff_exp.runs.go import gate_decision
from mlff_exp.runs.launching import launch
from mlff_exp.runs.outcome import Outcome, exit_code
from mlff_exp.runs.preparing import Job, prepare_jobs, prepare_sweep
from mlff_exp.runs.recording import Recorder
from mlff_exp.runs.resuming import find_done_jobs
from mlff_exp.runs.stages import StageRunner
from mlff_exp.tracking import upload
from tests.helpers.here import CONF
from tests.helpers.results import CONFIG, full_result
from tests.helpers.sweeps import host_of

ANY_CONFIG: Any = None  # of jobs that nothing runs


class Launcher:
    """Runs nothing: the first job comes to what it is told, the others finish."""

    def __init__(self, first: Outcome) -> None:
        self.first = first
        self.launched: list[Sequence[str]] = []

    def launch(self, overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[SimpleNamespace]:
        self.launched += overrides
        finished = Outcome("speed", Path(), "FINISHED", None, None, None)
        return [SimpleNamespace(return_value=finished if initial_job_idx else self.first) for _ in overrides]


def launched_by(launcher: Any) -> HydraHost:
    """A host whose jobs a stand-in launches; it is a cluster."""
    host = host_of([])
    host.launcher = launcher
    return host


@pytest.mark.parametrize(
    ("gate", "launched", "left"),
    [
        (Outcome("stability", Path(), "FINISHED", "GO", None, None), 3, 0),
        (Outcome("stability", Path(), "FINISHED", "NO-GO", None, None), 1, 0),
        (Outcome("stability", Path(), "FINISHED", "UNDECIDED", None, None), 1, 0),
        (Outcome("stability", Path(), "KILLED", None, "timeout", "stopped after timeout_s=240"), 1, 2),
    ],
    ids=["GO", "NO-GO", "UNDECIDED", "no verdict"],
)
def test_only_a_go_opens_the_stages_after_a_gate(tmp_path: Path, gate: Outcome, launched: int, left: int) -> None:
    launcher = Launcher(gate)
    jobs = [Job(stage, stage == "stability", [], ANY_CONFIG, CONFIG, None) for stage in ("stability", "speed", "speed")]
    stages = StageRunner(launched_by(launcher), Recorder(tmp_path), jobs, set(), "no_verdict")
    undone = stages.run(Sweep())
    assert (len(launcher.launched), len(stages.outcomes), undone) == (launched, launched, left)
    decisions = [next(word for word in words if word.startswith("sweep.gate")) for words in launcher.launched]
    assert decisions == ["sweep.gate_decision=no_verdict", *["sweep.gate_decision=GO"] * (launched - 1)]


@pytest.mark.parametrize(
    ("decisions", "code"),
    [
        (["GO", None], 0),
        (["GO", "UNDECIDED"], 3),
        (["NO-GO", "UNDECIDED"], 3),
        (["UNDECIDED", "failed"], 1),
    ],
)
def test_the_exit_code_is_that_of_the_worst_outcome(decisions: list[str | None], code: int) -> None:
    failed = Outcome("speed", Path(), "FAILED", None, "error", "it broke")
    outcomes = [
        failed if decision == "failed" else Outcome("stability", Path(), "FINISHED", decision, None, None)
        for decision in decisions
    ]
    assert exit_code(outcomes) == code


def test_a_sweep_that_asks_for_no_go_starts_without_pytorch() -> None:
    script = """
import sys
from types import SimpleNamespace
from hydra_plugins.mlff_exp_sweeper.staged import StagedSweeper
from mlff_exp.cli import sweep
from mlff_exp.runs.go import gate_decision
print(gate_decision(None, SimpleNamespace(master=SimpleNamespace(gate_required=False)), None), 'torch' in sys.modules)
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert finished.stdout == "no_verdict False\n", finished.stderr


class Node:
    """A launcher whose jobs come to what they are told: an outcome, an error of their own, or all of them are lost."""

    def __init__(self, *ends: Outcome | Exception, lost: BaseException | None = None) -> None:
        self.ends, self.lost = list(ends), lost

    def launch(self, overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        if self.lost is not None:
            lost, self.lost = self.lost, None
            raise lost
        ends = [self.ends.pop(0) for _ in overrides]
        status = {True: JobStatus.FAILED, False: JobStatus.COMPLETED}
        words = ["model.calculator.token=hunter2"]
        return [JobReturn(words, status=status[isinstance(end, Exception)], _return_value=end) for end in ends]


FINISHED = Outcome("speed", Path(), "FINISHED", None, None, None)


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[[Any, list[Job]], list[Outcome]]:
    """Run jobs with a launcher."""

    def run(launcher: Any, jobs: list[Job]) -> list[Outcome]:
        stages = StageRunner(launched_by(launcher), Recorder(tmp_path), jobs, set(), "no_verdict")
        stages.run(Sweep())
        return [outcome for outcome, _ in stages.outcomes]

    return run


def jobs_of(*stages: str) -> list[Job]:
    return [Job(stage, stage == "stability", ["device=cpu"], ANY_CONFIG, CONFIG, None) for stage in stages]


def test_unavailable_jobs_are_skipped_and_raising_jobs_fail(
    sweep: Callable[..., list[Outcome]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others of the stage and the stages after it go on."""
    launcher = Node(UnavailableError("no GPU"), FINISHED, ValueError("http://user:hunter2@host"), FINISHED)
    skipped, _, failed, last = sweep(launcher, jobs_of("speed", "speed", "speed", "accuracy"))
    assert last == FINISHED
    assert (skipped.status, skipped.failure_kind, skipped.failure_message) == ("SKIPPED", "unavailable", "no GPU")
    assert (failed.status, failed.failure_kind, failed.failure_message) == ("FAILED", "ValueError", "http://***@host")
    assert [RunResult.load(tmp_path / number).status for number in ("0", "2")] == ["SKIPPED", "FAILED"]
    assert (tmp_path / "0" / "config.yaml").is_file()
    assert "ValueError: http://***@host" in (tmp_path / "2" / "traceback.txt").read_text()
    assert "hunter2" not in capsys.readouterr().err


def test_a_gate_that_its_node_cannot_run_has_failed(sweep: Callable[..., list[Outcome]]) -> None:
    (gate,) = sweep(Node(UnavailableError("no GPU"), FINISHED), jobs_of("stability", "speed"))
    assert (gate.status, gate.failure_kind) == ("FAILED", "unavailable")


def test_jobs_that_were_lost_have_failed_but_for_those_that_had_ended(
    sweep: Callable[..., list[Outcome]], tmp_path: Path
) -> None:
    full_result().save(directory_of(tmp_path, 1))
    lost, ended, last = sweep(Node(FINISHED, lost=RuntimeError("node died")), jobs_of("speed", "speed", "accuracy"))
    assert (lost.status, lost.failure_kind, lost.failure_message) == ("FAILED", "RuntimeError", "node died")
    assert (ended.status, ended.directory) == ("FINISHED", tmp_path / "1")
    assert last == FINISHED


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_interrupt_and_a_full_disk_end_a_sweep(
    sweep: Callable[..., list[Outcome]], error: BaseException, tmp_path: Path
) -> None:
    with pytest.raises(type(error)):
        sweep(Node(FINISHED, lost=error), jobs_of("speed"))
    assert list(tmp_path.iterdir()) == []


def test_submitit_loses_one_job_alone() -> None:
    core = pytest.importorskip("submitit.core.core")

    class Submitted(core.Job):  # type: ignore[name-defined]
        def __init__(self, end: Any) -> None:
            self.end = end
            self._sub_jobs: list[Any] = []

        def __del__(self) -> None:
            pass

        def wait(self) -> None:
            pass

        def _get_outcome_and_result(self) -> tuple[str, Any]:
            if isinstance(self.end, Exception):
                raise self.end
            return "success", self.end

    class Launcher:
        __module__ = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"

        def launch(self, overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
            return [Submitted(end).results()[0] for end in ends]

    returned = JobReturn(status=JobStatus.COMPLETED, _return_value=FINISHED)
    ends = [returned, core.utils.UncompletedJobError("has not produced any output"), returned]
    before = core.Job.results
    first, lost, last = launch(Launcher(), [[], [], []], 0)
    assert (first, last) == (FINISHED, FINISHED)
    assert str(lost) == "has not produced any output"
    assert core.Job.results is before


NO_GPU = "engine=fused needs a CUDA GPU"


@pytest.mark.parametrize("damage", [lambda text: text[:50], lambda _: "", lambda _: "\0garbage"])
def test_a_run_whose_result_is_damaged_starts_again(
    damage: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        full_result().save(directory_of(tmp_path, number))
    path = tmp_path / "0" / "result.json"
    path.write_text(damage(path.read_text()))
    jobs = [Job("sweep", False, [], ANY_CONFIG, CONFIG, None)] * 2
    assert find_done_jobs(jobs, tmp_path) == {1}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["0.attempt0", "1"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mlff-exp: {path} is not a result of this version")
    assert line.endswith("; this run starts again")


@pytest.mark.parametrize("before", [None, "SKIPPED", "KILLED"])
def test_a_gate_that_cannot_run_here_is_refused_before_any_work(tmp_path: Path, before: Status | None) -> None:
    """In the first run, and where it is resumed."""
    if before is not None:
        RunResult(CONFIG, before, failure=Failure("unavailable", NO_GPU)).save(directory_of(tmp_path, 0))
    jobs = [Job("stability", True, [], ANY_CONFIG, CONFIG, NO_GPU), Job("speed", False, [], ANY_CONFIG, CONFIG, None)]
    with pytest.raises(UnavailableError, match=f"the gate of stage 'stability' can't run: {NO_GPU}"):
        find_done_jobs(jobs, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ([] if before is None else ["0"])


def test_a_gate_that_has_said_its_word_need_not_run_again(tmp_path: Path) -> None:
    """Jobs of later stages that can't run here are skipped, and stay skipped."""
    full_result().save(directory_of(tmp_path, 0))
    RunResult(CONFIG, "SKIPPED", failure=Failure("unavailable", NO_GPU)).save(directory_of(tmp_path, 1))
    jobs = [Job("stability", True, [], ANY_CONFIG, CONFIG, NO_GPU), Job("speed", False, [], ANY_CONFIG, CONFIG, NO_GPU)]
    assert find_done_jobs(jobs, tmp_path) == {0, 1}


def directory_of(sweep: Path, number: int) -> Path:
    directory = sweep / str(number)
    directory.mkdir()
    return directory


def test_a_server_that_is_lost_between_runs_ends_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor where nothing is run: what was done before is only uploaded."""

    def lost(*arguments: object) -> None:
        raise MlflowException("connection refused")

    monkeypatch.setattr(upload, "log_run", lost)
    full_result().save(directory_of(tmp_path, 0))
    store: Any = object()
    outcome = Recorder(tmp_path, "parent", store).recorded(0)
    assert (outcome.status, outcome.directory) == ("FINISHED", tmp_path / "0")
    assert f"later: mlff-exp-sync {tmp_path / '0'}" in capsys.readouterr().err


@pytest.mark.parametrize("single", [True, False])
def test_only_a_single_run_ends_if_its_store_does_not_answer(
    capsys: pytest.CaptureFixture[str], *, single: bool
) -> None:
    def ask() -> None:
        raise ConfigError("no answer from http://user:hunter2@host")

    with pytest.raises(ConfigError) if single else nullcontext():
        _reached(ask, single)
    assert ("mlff-exp: not in MLflow yet: no answer from http://***@host\n" in capsys.readouterr().err) == (not single)


@pytest.mark.parametrize(("gate", "expected"), [("strict", True), ("off", False)])
def test_no_stage_is_a_gate_without_one(gate: str, *, expected: bool) -> None:
    overrides = ["experiment=nve_gate", "device=cpu", f"gate={gate}"]
    host = host_of(overrides)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        (job,) = prepare_jobs(host, overrides, parse_config(without_hydra(host.config)).sweep.stages)
    assert job.gate is expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["experiment=size_scaling", "sweep.parameters.molecules=water", "sweep.parameters.boxes=8"], ["benzene"]),
        (
            ["experiment=batch_scaling", "sweep.parameters.batch_sizes=1", "system=water,methane", "seed=1,2"],
            ["water", "methane"],
        ),
        (["task=nve", "task.systems=[water,methane]"], ["water", "methane"]),
        (["task=accuracy"], []),
    ],
)
def test_a_go_is_asked_for_the_systems_that_were_named(words: list[str], expected: list[str]) -> None:
    words = ["device=cpu", "engine=eager", *words]
    host = host_of([word for word in words if word.startswith(("experiment", "device"))])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert [system.values["name"] for system in prepare_sweep(host, words).systems] == expected


def test_local_jobs_know_their_device() -> None:
    """It is compiled ahead for that device."""
    host = host_of([])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        (job,) = prepare_jobs(host, ["engine=eager"], [])
    assert job.config.device in ("cpu", "cuda")


def test_without_mlflow_a_go_is_found_where_the_sweep_leaves_its_runs(tmp_path: Path) -> None:
    verdict = Verdict("GO", "strict", (), ())
    weights = load_checkpoint("student").weights_sha256
    words = [
        "experiment=batch_scaling",
        "device=cpu",
        "sweep.parameters.batch_sizes=1",
        f"hydra.sweep.dir={tmp_path}/b",
    ]
    host = host_of(words)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plan = prepare_sweep(host, words[:3])
        task = {"name": "nve", "replicas": 1, "duration_ps": 100.0, "timestep_fs": 0.5, "systems": []}
        task["temperature_k"] = 300.0
        config = host.settings() | {"task": task}
        config["gate"] = asdict(plan.master.gate)
        host.roots = place_sweep(host.config)
    run = tmp_path / "gate" / "0"
    run.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"name=benzene, over 100 ps in steps of 0\.5 fs at 300 K, with these limits"):
        gate_decision(host, plan, None)
    del config["hydra"]
    RunResult(config, verdict=verdict, tags={"checkpoint.sha256": weights}).save(run)
    assert gate_decision(host, plan, None) == "GO"


def test_a_cluster_gets_words_for_the_named_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the sweep is composed there is no GPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    few = ["sweep.parameters.batch_sizes=1", "sweep.parameters.modes=default", "sweep.parameters.captured=fused"]
    overrides = ["experiment=phase1", "device=cuda", *few, "sweep.parameters.precisions=fp16_autocast"]
    host = host_of(overrides)
    host.launcher = object()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        master = parse_config(without_hydra(host.config))
        jobs = prepare_jobs(host, overrides, master.sweep.stages)
    assert master.sweep.compile_ahead
    assert jobs[0].gate
    assert (jobs[0].config.engine.name, jobs[-1].config.precision.name) == ("fused", "fp16_autocast")
    assert {job.unavailable for job in jobs} == {None}


@pytest.mark.parametrize(
    ("words", "refused"),
    [(["task=nve,inference", "batch_size=2"], False), (["task=nve", "batch_size=1,2"], True)],
)
def test_a_word_that_none_of_its_jobs_takes_ends_a_sweep_before_any_runs(words: list[str], *, refused: bool) -> None:
    words = ["device=cpu", "engine=eager", *words]
    host = host_of(["device=cpu", "engine=eager"])
    with pytest.raises(ConfigError, match="task=nve takes no batch_size") if refused else nullcontext():
        assert len(prepare_jobs(host, words, [])) == 2


def test_planning_shows_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    bar = ProgressLines(2, "planning", "job")

    def make(*arguments: Any, **options: Any) -> ProgressLines:
        asked.extend([*arguments, options["delay"]])
        return bar

    monkeypatch.setattr("mlff_exp.runs.preparing.progress_bar", make)
    prepare_jobs(host_of(["device=cpu", "engine=eager"]), ["device=cpu", "engine=eager", "seed=1,2"], [])
    assert asked == [2, "planning", "job", 1.0]
    assert bar.n == 2
