"""Bad words on the command line: exit code 2, one line that names them, nothing left behind."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mlff_exp.cli import app
from mlff_exp.cli.app import main
from mlff_exp.cli.flags import flags_first
from mlff_exp.cli.overrides import MAX_JOBS, n_values, parse_words
from mlff_exp.cli.publish import publish_main
from mlff_exp.cli.relocate import relocate_main
from mlff_exp.cli.report import report_main
from mlff_exp.cli.sync import sync_main
from mlff_exp.config.checks import LIMITS, is_file, nearest
from mlff_exp.config.config import Config, Sweep, Tracking
from mlff_exp.config.errors import ConfigError
from mlff_exp.config.gate import Gate, Limit
from mlff_exp.config.systems import WaterBox
from mlff_exp.config.words import PRECISIONS
from mlff_exp.engines.registry import ENGINES
from mlff_exp.models.adapters.calculator import AseModel
from mlff_exp.report.content import _verdict
from mlff_exp.results.failure import Failure
from mlff_exp.results.gate import combine_verdicts, judge_gate, qualified
from mlff_exp.results.result import RunResult
from mlff_exp.runs.failures import TRACEBACK_FILE
from mlff_exp.tasks.options import InferenceTask, NveTask
from mlff_exp.tasks.registry import TASKS
from mlff_exp.tracking.recovery import open_store
from tests.helpers.here import configured
from tests.helpers.refused import said_against

LONG = "9" * 5000
BAD = {
    "hydra=null": "hydra holds groups and keys, and is none to choose from",
    "~hydra.run.dir": "it can't be left out; give it another value",
    "hydra.job.override_dirname=x": "hydra.job.override_dirname=x: Hydra finds it out",
    "-m tracking=local,offline": "a sweep has one tracking, which its jobs share",
    "-m gate_required=true,false": "a sweep has one gate_required, which its jobs share",
    "-m seed=1 sweep.resume=": "sweep.resume='' must be the directory or the MLflow id of a sweep",
    "task=nve task.resume=": "task.resume='' must be the directory or the MLflow id of a run",
    "task.baselines=eager": "task.baselines=eager: it must be a list: [a,b]",
    "task.baselines={a:1}": "a mapping and a list can't stand for each other",
    "model.checkpoint=[a]": "model.checkpoint=[a]: it must be a single value",
    f"engine={'a' * 300}": "…: engine is one of: compile",
    f"{'a' * 300}=1": "…: there is no key of 300 characters",
    "trust=[nosuchpackage]": "trust=[nosuchpackage]: no package nosuchpackage is installed",
    "hydra.run.dir=???": "hydra.run.dir=??? must name a directory",
    "hydra.verbose=5": "hydra.verbose=5 must be true, false, the name of a logger or a list of names",
    "hydra.job_logging.version=2": "hydra.job_logging can't be used: Unsupported version: 2",
    "hydra.job_logging.handlers.file.filename=/nope/x": "No such file or directory: /nope/x",
    "hydra.job_logging.handlers.file.filename=x.log hydra.job_logging.formatters=5": "'int' object is not iterable",
    "hydra.job_logging=???": "hydra.job_logging=??? must be a mapping",
    "hydra.job.env_set=???": "hydra.job.env_set must be a mapping",
    "-m seed=1,2 hydra.hydra_logging.root.handlers=[nope]": "hydra.hydra_logging can't be used",
    "hydra.job_logging.root.level=LOUD": "hydra.job_logging.root.level='LOUD' is not one of: CRITICAL, FATAL",
    "-m hydra.launcher=null seed=1,2": "hydra.launcher=None must be a mapping",
    "-m hydra.sweeper=null seed=1,2": "hydra.sweeper=None must be a mapping",
    "-m hydra.sweeper.params.x=1": "hydra.sweeper.params.x=1: say x=1 instead",
    "-m seed=1,1": "two runs of the sweep are the same, seed=1: give each value once",
    "-m seed=1,01": "two runs of the sweep are the same, seed=01: give each value once",
    "-m system='water',water": "two runs of the sweep are the same, system=water: give each value once",
    "-m timeout_s=1,1.0": "two runs of the sweep are the same, timeout_s=1.0: give each value once",
    "device=cpu -m --cfg job": "-m and --cfg exclude each other",
    "gate.criteria={}": "gate.criteria={} changes nothing: a mapping is merged",
    "model=ase model.calculator={}": "model.calculator={} changes nothing",
    "--nonsense": "unrecognized arguments: --nonsense",
    "--resolve": "--resolve changes nothing without --cfg",
    "--package task": "--package changes nothing without --cfg",
    "--package nope --cfg job": "--package nope is no part of the configuration",
    "--cfg nope": "invalid choice: 'nope'",
    "--cfg job bach_size=1": "did you mean 'batch_size'?",
    "--config-name nope": "Cannot find primary config 'nope'",
    "-m --cfg job": "-m and --cfg exclude each other: to see the configuration, leave out -m",
    "--multirun --run": "--run and -m exclude each other",
    "-cd": "expected one argument",
    "foo": "it is not of the form key=value",
    "=3": "there is no key before =",
    "system='water": "a quote ' is not closed",
    "seed=[1": "a bracket is not closed",
    "batch_size==3": "extraneous input '='",
    "model.checkpoint=~nouser/x": "needs quotes",
    f"batch_size={LONG}": "Exceeds the limit",
    "task=null": "task=null: task is one of: accuracy, distill, inference, nve",
    "task=": "task is one of",
    "task=1": "task is one of",
    "task=[nve,inference]": "task is one of",
    "task@foo=nve": "task has one place",
    "~task": "task can't be left out",
    "~batch_size": "batch_size can't be left out",
    "+experiment=quickstart": "say experiment=…, without a plus",
    "batch_size=": "Value '' of type 'str' could not be converted to Integer",
    "batch_size=1.5": "could not be converted to Integer",
    "batch_size=true": "could not be converted to Integer",
    "batch_size=null": "batch_size can't be null",
    "timeout_s=true": "could not be converted to Float",
    "timeout_s=nan": "timeout_s=nan must be a number",
    "seed=${nokey}": "Interpolation key 'nokey' not found; in seed",
    "engine=${nokey}": "'${nokey}': Interpolation key 'nokey' not found",
    "engine=${fast_engine:auto,foo}": "fast_engine:<device>,systems='foo' is not one of: any, molecules",
    "precision.name=${low_precision:foo}": "device='foo' is not one of: auto, cpu, cuda, cuda:<number>; in precision",
    "seed=${oc.deprecated:batch_size}": "${oc.deprecated:batch_size}: name the key that is meant, as ${batch_size}",
    "seed='1\x0b2'": "holds a line break or another control character",
    "model=ase model.calculator=???": "model.calculator has no default",
    f"model=ase model.calculator._target_={'a' * 300}.B": "… is no import path such as package.module.Class",
    f"-m seed=1,2 sweep.name={'a' * 300}": "… has 300 characters; at most 100 are possible",
    f"hydra.run.dir=x/{'a' * 300}": "no such directory can be made: File name too long",
    "task.baselines=[[1]]": "task.baselines.0=[1] must be a single value",
    "seed=${seed}": "seed refers to itself",
    "precision=fp16": "did you mean 'fp16_autocast'?",
    "engine=cudagraph": "did you mean 'cuda_graph'?",
    "model=painn": "did you mean 'student'?",
    "task=md": "did you mean 'nve'?",
    "device=gpu": "did you mean 'cuda'?",
    "device=cuda:<number>": "can't be read",
    "experiment=quickstart task.duration_ps=5": "task.duration_ps belongs to task=nve; an experiment takes",
    "hydra.mode=RUN experiment=quickstart": "quickstart has stages, which only a sweep runs",
    "sweep.budget_s=5": "sweep.budget_s=5 changes nothing in a single run: for a sweep add -m",
    "sweep.parameters.x=3": "changes nothing in a single run",
    "sweep.resume=x": "changes nothing in a single run",
    "gate_required=true": "changes nothing in a single run",
    "hydra.sweeper.params.seed=3": "changes nothing in a single run",
    "hydra.launcher.partition=gpu": "changes nothing in a single run",
    "hydra/launcher=slurm_gpu": "changes nothing in a single run",
    "+hydra.foo=3": "+hydra.foo=3 changes nothing; keys of hydra",
    "gate=off": "gate=off: task=inference is judged by no gate",
    "cold_compile=true engine=eager": "nothing is compiled",
    "tracking=offline tracking.directory=x": "keeps no store in a directory",
    "hydra.run.dir=": "must name a directory",
    "hydra.run.dir=/proc/x": "no such directory can be made",
    "hydra.searchpath=[nope]": "is not available",
    "-m seed=range(0,0)": "seed=range(0,0) holds no value",
    "-m seed=range(0,10000000)": "the sweep has 10,000,000 jobs, at most 10,000",
    "-m seed=range(0,1e300,1e-300)": "at most 10,000",
    "-m seed=range(0,1000) batch_size=range(1,1000)": "the sweep has 999,000 jobs",
    "-m seed=range(0,3,0)": "can't have a step of 0",
    "-m seed=interval(0,1)": "an interval has infinitely many values",
    "-m engine=glob(x*)": "holds no value",
    "-m hydra.mode=RUN seed=0,1": "hydra.mode=RUN and -m exclude each other",
    "-m +sweep.parameters.x=3": "only the stages of an experiment refer to sweep.parameters",
    "-m hydra/sweeper=basic": "only hydra/sweeper=staged records",
    "-m seed=0,1 batch_size=0": "batch_size=0 must be greater than 0",
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object) -> None:
        raise AssertionError("work began")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "run_task", work)


def test_flags_may_stand_behind_overrides() -> None:
    def ordered(words: str) -> str:
        return " ".join(flags_first(words.split()))

    assert ordered("device=cpu -m seed=1,2") == "-m device=cpu seed=1,2"
    assert ordered("a=1 -cn main b=2 --config-dir=x --cfg job") == "-cn main --config-dir=x --cfg job a=1 b=2"
    assert ordered("a=1 --config-d mine b=2 --multirun") == "--config-d mine --multirun a=1 b=2"
    assert ordered("a=1 -m -- b=1 -x") == "-m -- a=1 b=1 -x"
    assert ordered("a=1 -cd") == "-cd a=1"


def test_a_stage_takes_no_flags() -> None:
    with pytest.raises(ConfigError, match="'--config-dir' can't be read: flags are for the command line"):
        parse_words(["seed=1", "--config-dir"], None)


@pytest.mark.parametrize(("words", "message"), BAD.items(), ids=[words[:50] for words in BAD])
def test_a_bad_word_is_refused_in_one_line(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in said_against(capsys, monkeypatch, *words.split(" "))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("system/mine", "path: [", "mine.yaml"),
        ("experiment/mine", "batch_size: 3\n", "'# @package _global_'"),
        ("experiment/mine", "# @package _global_\ndefaults: [nothere]\n", "nothere"),
    ],
)
def test_a_bad_file_of_ones_own_is_refused_in_one_line(
    name: str, text: str, message: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = tmp_path / "mine" / f"{name}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    group = name.partition("/")[0]
    assert message in said_against(capsys, monkeypatch, "-cd", "mine", f"{group}=mine")
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]


ONLY_SWEEPS = [
    (
        "hydra: {sweeper: {params: {seed: '1,2'}}}",
        "hydra.sweeper.params={'seed': '1,2'} comes from a file, and changes",
    ),
    ("gate_required: true", "gate_required=True comes from a file, and changes nothing in a single run"),
    ("sweep: {budget_s: 5}", "sweep.budget_s=5.0 comes from a file, and changes nothing in a single run"),
    ("defaults: [override /hydra/launcher: slurm_gpu]", "hydra/launcher=slurm_gpu comes from a file, and changes"),
    ("sweep: {stages: [{name: a}]}", "sweep has stages, which only a sweep runs"),
]


@pytest.mark.parametrize(("text", "message"), ONLY_SWEEPS)
def test_what_a_file_says_of_a_sweep_is_not_ignored_in_a_single_run(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine" / "experiment" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"# @package _global_\n{text}\n")
    line = said_against(capsys, monkeypatch, "-cd", "mine", "experiment=mine")
    assert message in line
    assert line.endswith(": for a sweep add -m")
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]


@pytest.mark.parametrize("kind", [*(task.options for task in TASKS), WaterBox, Sweep])
def test_every_number_has_bounds(kind: type) -> None:
    """Each field of each dataclass is bounded, and refuses what is no number or beyond."""
    for item in fields(kind):
        numeric = any(word in str(item.type) for word in ("int", "float"))
        assert numeric == (LIMITS in item.metadata), f"{kind.__name__}.{item.name}"
        for value in (math.nan, math.inf, -math.inf, -1, True, 1e300, 10**400) if numeric else ():
            given = [value] if "list" in str(item.type) else value
            with pytest.raises(ConfigError, match=item.name):
                kind(**{item.name: given})


@pytest.mark.parametrize("key", ["batch_size", "seed", "timeout_s"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, True, 10**400], ids=lambda value: str(value)[:5])
def test_numbers_of_a_run_have_bounds(key: str, value: float) -> None:
    given: dict[str, Any] = {key: value}
    with pytest.raises(ConfigError, match=key):
        Config(task=InferenceTask(), **given)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("end", ["min", "max"])
def test_limits_of_a_gate_are_numbers(end: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"gate.criteria.momentum_error.{end}=.* must be a finite number"):
        Gate("mine", {"momentum_error": Limit(**{end: value})})
    with pytest.raises(ConfigError, match="nothing lies between min=1 and max=0"):
        Gate("mine", {"momentum_error": Limit(1, 0)})


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"timestep_fs": 1e-300}, "steps; at most 1,000,000,000 are possible"),
        ({"duration_ps": 1e6, "timestep_fs": 1e-3}, "steps; at most 1,000,000,000 are possible"),
        ({"settle_ps": 1e-9}, "is shorter than a step"),
        ({"record_every": 1, "replicas": 1000, "duration_ps": 1000.0}, "frames; at most 100,000,000 are kept"),
    ],
)
def test_more_than_can_be_computed_is_refused_before_the_work(task: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NveTask(**task)


def test_large_and_legal_batches_pass() -> None:
    assert configured("batch_size=65536").batch_size == 65_536
    assert configured("task=nve", "task.replicas=65536", "task.record_every=1000").task.replicas == 65_536
    with pytest.raises(ConfigError, match="are 3,000,000,000,000 atoms; a batch holds at most"):
        configured("system=water_box", "system.n_molecules=1000000", "batch_size=1000000")


def test_jobs_are_counted_without_making_them() -> None:
    def count(*words: str) -> int:
        return n_values(OverridesParser.create().parse_overrides(list(words)))

    assert count("seed=0,1,2", "batch_size=range(1,11,3)", "timeout_s=5") == 12
    assert count("seed=range(0,1,0.25)") == 4
    assert count("seed=1,2,3", "seed=1,2") == 2, "the last is what counts"
    started = time.process_time()
    with pytest.raises(ConfigError, match=f"at most {MAX_JOBS:,}"):
        count("seed=range(0,1000000000000)")
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("fp16", "fp16_autocast"), ("BF16", "bf16_autocast"), ("bfloat16", "bf16_autocast"), ("double", "fp64"),
        ("cudagraphs", "cuda_graph"), ("cuda-graphs", "cuda_graph"), ("Triton", "fused"), ("comp", "compile"),
        ("qqq", None), ("", None),
    ],
)  # fmt: skip
def test_the_word_that_was_meant_is_found(wrong: str, meant: str | None) -> None:
    assert nearest(wrong, (*PRECISIONS, *ENGINES.names())) == meant


def test_a_path_that_no_file_can_have_is_no_file() -> None:
    for path in ("a" * 5000, "~nosuchuser/x", "zero\0byte", ""):
        assert not is_file(path)


def test_what_a_task_refuses_before_its_work_leaves_nothing(
    tmp_path: Path, mlruns: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a directory nor a run in MLflow."""

    def refused(config: object, resolved: dict[str, object], directory: Path, live: object) -> RunResult:
        (directory / TRACEBACK_FILE).write_text("Traceback")
        result = RunResult(resolved, "FAILED", failure=Failure("ConfigError", "mine.xyz: no atoms"))
        result.save(directory)
        return result

    monkeypatch.setattr(app, "run_task", refused)
    for words in ((), ("hydra.run.dir=mine",)):
        assert said_against(capsys, monkeypatch, "task=accuracy", *words) == "mlff-exp: mine.xyz: no atoms"
    assert [path for path in tmp_path.iterdir() if path != mlruns] == []
    store = open_store(Tracking(directory=str(mlruns)))
    assert store is not None
    assert store.client.search_runs([store.experiment_id]) == []


def test_what_another_run_left_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "result.json").write_text("{}")
    assert "is the result of another run" in said_against(capsys, monkeypatch, "hydra.run.dir=.", "tracking=offline")
    assert (tmp_path / "result.json").read_text() == "{}"


@pytest.mark.parametrize(
    "main",
    [main, sync_main, relocate_main, report_main, publish_main],
    ids=["mlff-exp", "sync", "relocate", "report", "publish"],
)
def test_every_command_says_its_version(
    main: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mlff-exp", "--version"])
    assert callable(main)
    with pytest.raises(SystemExit, match="0"):
        main()
    said = capsys.readouterr().out
    assert said.startswith("mlff-exp")
    assert "PyTorch 2" in said
    assert "Hydra 1" in said


def test_a_go_over_a_short_trajectory_says_so() -> None:
    gate = Gate("mine", {"momentum_error": Limit(max=1.0)})
    go, no_go = (judge_gate({"momentum_error": value}, gate) for value in (0.0, 2.0))
    short = qualified(go, 0.05)
    assert (short.decision, short.reasons) == ("GO", ("0.05 ps are too short to decide; 100 ps decide",))
    assert qualified(go, 10.0) == go
    assert qualified(no_go, 0.05) == no_go
    both = combine_verdicts({"a": short, "b": short})
    assert (both.decision, both.reasons) == ("GO", short.reasons)
    assert combine_verdicts({"a": short, "b": no_go}).reasons == tuple(f"b: {reason}" for reason in no_go.reasons)
    result = RunResult({"task": {"name": "nve", "duration_ps": 0.05}}, verdict=short)
    assert _verdict(result) == "GO over 0.05 ps, too short (mine)"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2**63, 10**400])
@pytest.mark.parametrize("place", [lambda value: value, lambda value: [1, value], lambda value: {"b": {"c": value}}])
def test_arguments_of_a_calculator_are_numbers(place: Callable[[float], object], value: float) -> None:
    calculator = {"_target_": "ase.calculators.lj.LennardJones", "a": place(value)}
    with pytest.raises(ConfigError, match=r"model\.calculator\.a.* must be a"):
        AseModel(calculator=calculator)
