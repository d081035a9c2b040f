"""What the sweeper plans, and when it stops; whole commands are in test_cli.py."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from mlflow.exceptions import MlflowException

from hydra_plugins.mlff_exp_sweeper.staged import Job, StagedSweeper
from mlff_exp import __main__, tracking
from mlff_exp import config as schema
from mlff_exp.config import ConfigError, Sweep, UnavailableError
from mlff_exp.outcome import Outcome
from mlff_exp.result import Failure, RunResult, Status
from tests.here import CONF
from tests.test_result import CONFIG, full_result


class Launcher:
    """Runs nothing: the first job comes to what it is told, the others finish."""

    def __init__(self, first: Outcome) -> None:
        self.first = first
        self.launched: list[Sequence[str]] = []

    def launch(self, overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[SimpleNamespace]:
        self.launched += overrides
        finished = Outcome("speed", Path(), "FINISHED", None, None, None)
        return [SimpleNamespace(return_value=finished if initial_job_idx else self.first) for _ in overrides]


@pytest.mark.parametrize(
    ("gate", "launched", "left"),
    [
        (Outcome("stability", Path(), "FINISHED", "GO", None, None), 3, 0),
        (Outcome("stability", Path(), "FINISHED", "NO-GO", None, None), 1, 0),
        (Outcome("stability", Path(), "KILLED", None, "timeout", "stopped after timeout_s=240"), 1, 2),
    ],
    ids=["GO", "NO-GO", "no verdict"],
)
def test_only_a_go_opens_the_stages_after_a_gate(tmp_path: Path, gate: Outcome, launched: int, left: int) -> None:
    sweeper = StagedSweeper()
    sweeper.launcher = launcher = Launcher(gate)
    jobs = [Job(stage, stage == "stability", [], None, {}, None) for stage in ("stability", "speed", "speed")]
    outcomes, undone = sweeper._run(jobs, set(), tmp_path, None, None, Sweep(), "no_verdict")
    assert (len(launcher.launched), len(outcomes), undone) == (launched, launched, left)
    decisions = [next(word for word in words if word.startswith("sweep.gate")) for words in launcher.launched]
    assert decisions == ["sweep.gate_decision=no_verdict", *["sweep.gate_decision=GO"] * (launched - 1)]


NO_GPU = "engine=fused needs a CUDA GPU"


@pytest.mark.parametrize("before", [None, "SKIPPED", "KILLED"])
def test_a_gate_that_cannot_run_here_is_refused_before_any_work(tmp_path: Path, before: Status | None) -> None:
    """In the first run, and where it is resumed."""
    if before is not None:
        RunResult(CONFIG, before, failure=Failure("unavailable", NO_GPU)).save(directory_of(tmp_path, 0))
    jobs = [Job("stability", True, [], None, CONFIG, NO_GPU), Job("speed", False, [], None, CONFIG, None)]
    with pytest.raises(UnavailableError, match=f"the gate of stage 'stability' can't run: {NO_GPU}"):
        StagedSweeper()._done(jobs, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ([] if before is None else ["0"])


def test_a_gate_that_has_said_its_word_need_not_run_again(tmp_path: Path) -> None:
    """What can't run here of the stages after it is skipped, and stays so."""
    full_result().save(directory_of(tmp_path, 0))
    RunResult(CONFIG, "SKIPPED", failure=Failure("unavailable", NO_GPU)).save(directory_of(tmp_path, 1))
    jobs = [Job("stability", True, [], None, CONFIG, NO_GPU), Job("speed", False, [], None, CONFIG, NO_GPU)]
    assert StagedSweeper()._done(jobs, tmp_path) == {0, 1}


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

    monkeypatch.setattr(tracking, "log_run", lost)
    full_result().save(tmp_path)
    outcome = StagedSweeper._recorded(tmp_path, "parent", object())
    assert (outcome.status, outcome.directory) == ("FINISHED", tmp_path)
    assert f"later: mlff-exp-sync {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("single", [True, False])
def test_only_a_run_by_itself_ends_where_its_store_does_not_answer(
    capsys: pytest.CaptureFixture[str], *, single: bool
) -> None:
    def ask() -> None:
        raise ConfigError("no answer from http://user:hunter2@host")

    with pytest.raises(ConfigError) if single else nullcontext():
        __main__._reached(ask, single)
    assert ("mlff-exp: not in MLflow yet: no answer from http://***@host\n" in capsys.readouterr().err) == (not single)


@pytest.mark.parametrize(("gate", "expected"), [("strict", True), ("off", False)])
def test_no_stage_is_a_gate_without_one(gate: str, *, expected: bool) -> None:
    schema.register()
    overrides = ["experiment=nve_gate", "device=cpu", f"gate={gate}"]
    sweeper = StagedSweeper()
    sweeper.launcher = BasicLauncher()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        sweeper.loader = GlobalHydra.instance().config_loader()
        sweeper.config = sweeper.loader.load_configuration("config", overrides, RunMode.MULTIRUN)
        stages = schema.parse(sweeper.config_without_hydra(sweeper.config)).sweep.stages
        (job,) = sweeper._plan(overrides, stages)
    assert job.gate is expected
