"""Graphs that are compiled before a sweep's first run are those that its runs ask for, and nothing but them is left."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch._inductor.config
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.utils import counters
from torch._inductor.fx_passes import pad_mm
from torch._inductor.runtime import autotune_cache

from mlff_exp.cli.sweeping import HydraHost
from mlff_exp.config.config import Config, Sweep
from mlff_exp.engines import compiled, eager
from mlff_exp.engines.compiled import CompiledEngine
from mlff_exp.engines.eager import energy_and_forces
from mlff_exp.engines.inductor import TimedChoiceError, discard_timed_choices
from mlff_exp.models.painn import PaiNN
from mlff_exp.runs import ahead, stages
from mlff_exp.runs.ahead import (
    _first_calls,
    _start,
    describe_error,
    fill_cache,
    select_to_compile,
)
from mlff_exp.runs.preparing import Job
from mlff_exp.runs.recording import Recorder
from mlff_exp.structures.batch import AtomicBatch
from mlff_exp.tasks.machine import on_this_machine
from mlff_exp.tasks.registry import TASKS
from tests.helpers.command import ROOT, assert_worker_ends_with
from tests.helpers.here import configured, run_here
from tests.helpers.labels import labelled_by
from tests.helpers.results import CONFIG
from tests.helpers.stand_ins import fail_by_seed, sleep
from tests.helpers.sweeps import host_of

INFERENCE = [
    "task=inference",
    "engine=compile",
    "engine.mode=default",
    "system=water",
    "task.min_calls=3",
    "task.min_time_s=0.01",
]
NVE = ["task=nve", "task.duration_ps=0.05", "task.settle_ps=0.02", "task.probe_ps=0.05", "gate=plan"]


def named(*jobs: str) -> dict[str, Config]:
    return {words: configured(*words.split()) for words in jobs}


def test_graphs_of_several_runs_are_compiled_once() -> None:
    jobs = named(
        "task=inference engine=compile engine.mode=default precision=fp16_autocast",
        "task=inference engine=compile engine.mode=default precision=fp32",
        "task=inference engine=cuda_graph precision=fp16_autocast seed=7 task.min_calls=5",
        "task=inference engine=cuda_graph precision=tf32",
        "task=inference engine=compile engine.mode=reduce-overhead precision=fp32",
        "task=inference engine=compile engine.mode=default precision=fp32 batch_size=4",
        "task=nve engine=cuda_graph precision=tf32",
        "task=nve engine=cuda_graph precision=tf32 task.temperature_k=500 task.duration_ps=1",
        "task=nve engine=cuda_graph precision=tf32 task.replicas=2",
        "task=accuracy engine=cuda_graph precision=tf32",
    )
    found = select_to_compile(jobs).values()
    assert [(c.task.name, c.engine.mode, c.precision.name, c.batch_size) for c in found] == [
        ("inference", "default", "fp16_autocast", 1),
        ("inference", "default", "fp32", 1),
        ("inference", "default", "tf32", 1),
        ("inference", "default", "fp32", 4),
        ("nve", "default", "tf32", 1),
        ("nve", "default", "tf32", 1),
        ("accuracy", "default", "tf32", 1),
        ("inference", "reduce-overhead", "fp32", 1),
    ]
    assert {config.engine.name for config in found} == {"compile"}
    water = "task=inference engine=compile engine.mode=default system=water_box"
    assert len(select_to_compile(named(water, f"{water} task.stress=never"))) == 2
    (kernels,) = select_to_compile(named("task=nve engine=fused precision=fp32")).values()
    assert kernels.engine.name == "fused"


def test_baselines_are_compiled_as_well() -> None:
    words = "task=inference engine=eager precision=fp16_autocast task.baselines=[cuda_graph,fused,compile,eager]"
    found = select_to_compile(named(words)).values()
    assert [(config.engine.name, getattr(config.engine, "mode", None), config.precision.name) for config in found] == [
        ("compile", "default", "fp16_autocast"),
        ("fused", None, "fp16_autocast"),
        ("compile", "reduce-overhead", "fp16_autocast"),
    ]


@pytest.mark.parametrize(
    "words",
    [
        "task=inference engine=eager",
        "task=inference engine=compile engine.mode=max-autotune",
        "task=inference engine=compile cold_compile=true",
        "task=inference model=ase",
        "task=distill",
    ],
)
def test_runs_that_compile_nothing_or_by_themselves_are_left_out(words: str) -> None:
    assert select_to_compile(named(words)) == {}


def test_the_command_itself_needs_no_torch_for_it() -> None:
    script = "import sys; from mlff_exp.runs.ahead import fill_cache; fill_cache({}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.parametrize(("task", "graphs"), [("inference", 2), ("accuracy", 2), ("nve", 1)])
def test_a_run_finds_the_graphs_that_were_compiled_ahead(
    task: str, graphs: int, student: PaiNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs are noted and not compiled."""
    noted: set[tuple[Any, ...]] = set()

    def note(compiled: CompiledEngine, batch: AtomicBatch) -> Any:
        noted.add((compiled.mode, compiled.precision, batch.shape_key))
        graph = compiled._graphs[batch.shape_key] = lambda *tensors: energy_and_forces(
            compiled.model, AtomicBatch(*tensors), compiled.precision
        )
        return graph

    monkeypatch.setattr(CompiledEngine, "_compile", note)
    labelled_by(student, ("H2O", "NH3", "C6H6")).save(tmp_path / "own.npz")
    words = {
        "inference": [*INFERENCE, "batch_size=3", "precision=bf16_autocast"],
        "accuracy": ["task=accuracy", "engine=compile", "batch_size=2", f"task.dataset={tmp_path}/own.npz"],
        "nve": [*NVE, "engine=compile", "task.replicas=2", "task.systems=[water,ammonia]"],
    }[task] + ["model.checkpoint=student_small", "device=cpu"]
    for config in select_to_compile({task: on_this_machine(configured(*words))}).values():
        for share in range(TASKS[task].shares):
            _first_calls(config, share)
    before = noted.copy()
    noted.clear()
    run_here(tmp_path / "run", *words)
    assert before == noted
    assert len(before) == graphs


def test_a_run_finds_its_graph_in_inductors_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A force field that compiles in seconds: springs between the atoms and the origin."""

    def springs(model: PaiNN, batch: AtomicBatch, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
        return batch.per_system(batch.positions.square()).sum(dim=(1, 2)), -2 * batch.positions

    for module in (eager, compiled):
        monkeypatch.setattr(module, "energy_and_forces", springs)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    words = [*INFERENCE, "device=cpu", "model.checkpoint=student_small"]
    with torch._inductor.config.patch({"cpp_cache_precompile_headers": False}):
        for config in select_to_compile({"run 0": on_this_machine(configured(*words))}).values():
            _first_calls(config, 0)
        counters.clear()
        assert run_here(tmp_path / "run", *words).metrics["graph_count"] == 1
    assert counters["inductor"]["fxgraph_cache_miss"] == 0
    assert counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"] > 0


def test_no_choice_by_timing_is_kept(tmp_path: Path) -> None:
    def tuned(name: str) -> autotune_cache.AutotuneCache:
        cache = autotune_cache.AutotuneCache(name)
        cache._setup_local_cache({}, str(tmp_path / name))
        return cache

    choice = SimpleNamespace(kwargs={"XBLOCK": 128}, num_warps=4, num_stages=1)
    with discard_timed_choices():
        tuned("ahead").save(choice, 1)
        kept = pickle.dumps(tuned("ahead").save)  # as it is in the graphs that are kept
        with pytest.raises(TimedChoiceError, match="pad"):
            pad_mm.get_do_bench()(lambda: None)
    assert list(tmp_path.iterdir()) == []
    pickle.loads(kept)(choice, 1)  # noqa: S301 (our own)
    assert [path.name for path in tmp_path.iterdir()] == ["ahead"]


def test_a_refused_choice_by_timing_is_reported_in_one_line() -> None:
    def backend(module: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        raise TimedChoiceError("left to the run")

    with pytest.raises(BackendCompilerFailed) as caught:
        torch.compile(torch.neg, backend=backend)(torch.ones(1))
    assert describe_error(caught.value) == "left to the run"
    assert describe_error(ValueError("one\ntwo\nthree")) == "ValueError: one two"


def test_each_failure_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ahead, "_child", fail_by_seed)
    jobs = named(*(f"engine=compile engine.mode=default seed={seed} batch_size={seed + 1}" for seed in range(4)))
    fill_cache({f"run {number}": config for number, config in enumerate(jobs.values())})
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "mlff-exp:" in line]
    assert sorted(lines) == [
        "mlff-exp: not compiled ahead: run 1 (compile/default fp32): out_of_memory: 80 GB",
        "mlff-exp: not compiled ahead: run 2 (compile/default fp32): the process ended with code 3",
        "mlff-exp: not compiled ahead: run 3 (compile/default fp32): the process was ended by SIGKILL; "
        "the system may have run out of memory",
    ]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[BaseProcess]:
    """Processes that were started, as many at once as there are cores: two; they sleep."""
    processes: list[BaseProcess] = []
    start = _start

    def noting(name: str, config: Config, share: int) -> Any:
        one = start(name, config, share)
        processes.append(one.process)
        return one

    monkeypatch.setattr(ahead, "_child", sleep)
    monkeypatch.setattr(ahead, "_start", noting)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    return processes


SLEEPERS = [f"engine=compile batch_size={size}" for size in (1, 2, 3)]


def test_compiling_ahead_stops_at_its_time_limit(
    started: list[BaseProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    fill_cache(named(*SLEEPERS), 1.0)
    assert [process.exitcode for process in started] == [-signal.SIGKILL] * 2
    assert "mlff-exp: compiling ahead was stopped, its time was up: 3 jobs are left" in capsys.readouterr().err
    fill_cache(named(*SLEEPERS[1:], f"{SLEEPERS[0]} timeout_s=0.5"))
    assert [process.exitcode for process in started] == [-signal.SIGKILL] * 4


def test_an_interrupt_stops_all_of_them(started: list[BaseProcess]) -> None:
    def interrupt() -> None:
        while len(started) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell starts what it puts into the background deaf to interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            fill_cache(named(*SLEEPERS), 60.0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert [process.exitcode for process in started] == [-signal.SIGKILL] * 2


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> HydraHost:
    """Its launcher runs nothing and notes the numbers of the jobs."""

    class Launcher(BasicLauncher):
        def __init__(self) -> None:
            self.launched: list[int] = []

        def launch(self, overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
            self.launched.append(initial_job_idx)
            return [SimpleNamespace(return_value=SimpleNamespace(decision=None)) for _ in overrides]

    for name in ("recorded", "skipped"):
        monkeypatch.setattr(Recorder, name, lambda *arguments: SimpleNamespace(decision=None))
    made = host_of([])
    made.launcher = Launcher()
    return made


def job(config: Config, unavailable: str | None = None) -> Job:
    return Job("sweep", False, [f"seed={config.seed}"], config, CONFIG, unavailable)


@pytest.mark.parametrize(
    ("local", "wanted", "expected"), [(True, True, [{"run 1, seed=1"}]), (True, False, []), (False, True, [])]
)
def test_a_sweep_compiles_ahead_for_its_unfinished_jobs(
    local: bool,
    wanted: bool,
    expected: list[set[str]],
    host: HydraHost,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[set[str]] = []

    def note(jobs: dict[str, Config], budget_s: float) -> None:
        assert host.launcher.launched == []
        assert budget_s == 600
        asked.append(set(jobs))

    monkeypatch.setattr(stages, "fill_cache", note)
    if not local:
        host.launcher = SimpleNamespace(launched=[], launch=host.launcher.launch)
    jobs = [job(Config(seed=seed), "no GPU" if seed == 2 else None) for seed in range(3)]
    running = stages.StageRunner(host, Recorder(tmp_path), jobs, {0}, "no_verdict")
    running.run(Sweep(compile_ahead=wanted, budget_s=600))
    assert asked == expected


def test_a_sweep_continues_after_a_crash(
    host: HydraHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ahead, "_child", fail_by_seed)
    jobs = [job(configured("engine=compile", "device=cpu", f"seed={seed}", f"batch_size={seed}")) for seed in (2, 3)]
    stages.StageRunner(host, Recorder(tmp_path), jobs, set(), "no_verdict").run(Sweep(compile_ahead=True))
    assert host.launcher.launched == [0, 1]
    errors = capsys.readouterr().err
    assert "mlff-exp: not compiled ahead: run 0, seed=2 (compile/reduce-overhead fp32): the process ended" in errors
    assert "mlff-exp: not compiled ahead: run 1, seed=3 (compile/reduce-overhead fp32): the process was" in errors


def test_compiling_ahead_ends_with_the_command_that_started_it(tmp_path: Path) -> None:
    words = [*INFERENCE, "device=cpu", "tracking=offline", "sweep.compile_ahead=true"]
    command = [sys.executable, "-m", "mlff_exp", "-m", *words, f"hydra.sweep.dir={tmp_path}/sweep"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert_worker_ends_with(process)
    assert not list(tmp_path.glob("sweep/0"))  # it was none of a run
