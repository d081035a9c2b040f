"""Runs in their own process: whatever happens, there is a result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from mlff_exp.common.signals import raise_on_signals
from mlff_exp.config.config import Config
from mlff_exp.results.result import RunResult
from mlff_exp.results.verdict import Verdict
from mlff_exp.runs import worker
from mlff_exp.runs.worker import _child, _task, failure_kind, run_task
from mlff_exp.tasks import inference
from mlff_exp.tasks.options import InferenceTask
from mlff_exp.tasks.showing import keep_nothing
from tests.helpers.stand_ins import finish_and_hang, start_another


class InterruptedWhileStarting(SpawnProcess):
    started: ClassVar[list[int]] = []
    number: ClassVar[signal.Signals]

    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802 (multiprocessing's name)
        popen = SpawnProcess._Popen(process)
        InterruptedWhileStarting.started.append(popen.pid)
        os.kill(os.getpid(), InterruptedWhileStarting.number)
        time.sleep(0.1)  # where Python would raise KeyboardInterrupt, before anybody knows the new process
        return popen


def test_an_error_while_polling_stops_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = SpawnProcess(target=time.sleep, args=(600,))
    monkeypatch.setattr(worker, "_process", lambda *arguments: process)
    monkeypatch.setattr(worker, "POLL_EVERY_S", 0.1)

    def watch() -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        run_task(Config(task=InferenceTask()), {}, tmp_path, watch)
    assert not process.is_alive()


@pytest.mark.parametrize(
    ("number", "kind"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated"), (signal.SIGHUP, "hung_up")],
)
def test_an_interrupt_while_the_worker_starts_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, kind: str
) -> None:
    process = InterruptedWhileStarting(target=time.sleep, args=(600,))

    def fake(*arguments: Any) -> InterruptedWhileStarting:
        return process

    monkeypatch.setattr(worker, "_process", fake)
    monkeypatch.setattr(InterruptedWhileStarting, "number", number, raising=False)
    monkeypatch.setattr(InterruptedWhileStarting, "started", [])
    # A shell starts what it puts into the background deaf to interrupts.
    before = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), raise_on_signals():
            run_task(Config(task=InferenceTask()), {}, tmp_path)
    finally:
        signal.signal(number, before)
    (pid,) = InterruptedWhileStarting.started
    assert not Path(f"/proc/{pid}").exists()
    failure = RunResult.load(tmp_path).failure
    assert failure is not None
    assert failure.kind == kind
    assert signal.getsignal(number) is before


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Run this instead of a task, in a process that has no torch to import first."""

    def instead(target: Callable[..., None]) -> None:
        monkeypatch.setattr(worker, "POLL_EVERY_S", 0.1)
        monkeypatch.setattr(worker, "_process", lambda *arguments: SpawnProcess(target=target, args=arguments))

    return instead


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.05)


def gone(pid: int) -> bool:
    """Whether it ended within a moment; one that nobody has waited for is a zombie."""
    stat = Path(f"/proc/{pid}/stat")
    for _ in range(40):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


COMMAND = """
import sys
from multiprocessing.context import SpawnProcess
from pathlib import Path
from mlff_exp.config.config import Config
from mlff_exp.tasks.options import InferenceTask
from mlff_exp.runs import worker
from tests.helpers import stand_ins

if __name__ == "__main__":
    worker._process = lambda *arguments: SpawnProcess(target=stand_ins.hold_the_lock, args=arguments)
    worker.run_task(Config(task=InferenceTask()), {}, Path(sys.argv[1]))
"""


def test_a_worker_in_native_code_and_its_children_end_with_the_killed_command(tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text(COMMAND)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent.parent)}
    command = subprocess.Popen([sys.executable, str(tmp_path / "command.py"), str(tmp_path)], env=environment)
    try:
        wait_for(tmp_path / "other")
    finally:
        command.kill()
        command.wait()
    worker, other = (int(pid) for pid in (tmp_path / "other").read_text().split())
    assert gone(worker)
    assert gone(other)


SERVER = """
import os, signal, time
from multiprocessing import forkserver, get_context
from mlff_exp.runs import sessions

sessions.start_server()
before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
for number in sessions.BLOCKED_SIGNALS:
    os.kill(forkserver._forkserver._forkserver_pid, number)
process = get_context("forkserver").Process(target=sessions.begin_session)
process.start()
process.join()
sessions.signal_session(process, signal.SIGKILL)
print(process.exitcode, len(before))
"""


def test_the_fork_server_survives_a_signal_to_all_processes() -> None:
    """While it still imports what they need, a keyboard's interrupt would end it, and the run with it, unrecorded."""
    finished = subprocess.run([sys.executable, "-c", SERVER], capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stdout) == (0, "0 0\n"), finished.stderr


def test_a_worker_that_cannot_be_started_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unstartable(SpawnProcess):
        def start(self) -> None:
            raise EOFError("unexpected EOF")

    monkeypatch.setattr(worker, "_process", lambda *arguments: Unstartable())
    failure = run_task(Config(task=InferenceTask()), {}, tmp_path).failure
    assert failure is not None
    assert failure.kind == "crash"
    assert "the process that runs are started from has ended" in failure.message
    assert RunResult.load(tmp_path).status == "FAILED"


@pytest.mark.parametrize(("seed", "kind"), [(0, "timeout"), (1, "killed")])
def test_nothing_that_a_worker_started_outlives_it(
    tmp_path: Path, child: Callable[[Callable[..., None]], None], seed: int, kind: str
) -> None:
    child(start_another)
    config = Config(task=InferenceTask(), seed=seed, timeout_s=0.2 if kind == "timeout" else 60)
    result = run_task(config, {}, tmp_path, lambda: wait_for(tmp_path / "other"))
    assert result.failure is not None
    assert result.failure.kind == kind
    assert gone(int((tmp_path / "other").read_text()))


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_worker_that_has_finished_but_does_not_end_has_finished(
    tmp_path: Path, child: Callable[[Callable[..., None]], None], interrupt: bool
) -> None:
    def watch() -> None:
        wait_for(tmp_path / "result.json")
        if interrupt:
            raise KeyboardInterrupt

    child(finish_and_hang)
    with pytest.raises(KeyboardInterrupt) if interrupt else nullcontext():
        run_task(Config(task=InferenceTask(), timeout_s=0.2), {}, tmp_path, watch)
    assert RunResult.load(tmp_path).status == "FINISHED"


@pytest.mark.parametrize("cold", [True, False])
def test_a_cold_compile_finds_no_kernel_of_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, cold: bool
) -> None:
    knobs, found = pytest.importorskip("triton.knobs"), []

    def task(config: Config, directory: Path, keep: object) -> RunResult:
        caches = [Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]), Path(knobs.cache.dir)]
        found.extend(caches)
        assert [any(cache.glob("*")) for cache in caches] == [not cold] * 2
        return RunResult({})

    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kernel").touch()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(worker, "_task", task)
    monkeypatch.setattr(worker, "begin_session", lambda: None)
    (tmp_path / "cold").mkdir()
    _child(Config(task=InferenceTask()), {}, tmp_path, str(tmp_path / "cold") if cold else None)
    assert RunResult.load(tmp_path).failure is None
    assert [cache.is_relative_to(tmp_path / "cold") for cache in found] == [cold] * 2


@pytest.mark.parametrize("cold", [True, False])
def test_the_cache_of_a_cold_run_is_gone_even_if_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child: Callable[[Callable[..., None]], None], *, cold: bool
) -> None:
    (tmp_path / "made").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "made"))
    seen: list[list[Path]] = []
    child(finish_and_hang)
    config = Config(task=InferenceTask(), timeout_s=0.5, cold_compile=cold)
    run_task(config, {}, tmp_path, lambda: seen.append(list((tmp_path / "made").iterdir())))
    assert {len(directories) for directories in seen} == {int(cold)}
    assert list((tmp_path / "made").iterdir()) == []


def test_a_verdict_is_kept_when_a_later_step_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verdict("NO-GO", "strict", (), ("it broke",))

    def task(config: Config, directory: Path, keep: Callable[[RunResult], object]) -> RunResult:
        keep(RunResult({}, verdict=verdict))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(worker, "_task", task)
    monkeypatch.setattr(worker, "begin_session", lambda: None)
    with pytest.raises(SystemExit, match=r"the result is safe.*No space left"):
        _child(Config(task=InferenceTask()), {"a": 1}, tmp_path, None)
    found = RunResult.load(tmp_path)
    assert (found.status, found.verdict, found.config) == ("FINISHED", verdict, {"a": 1})
    assert found.duration_s is not None


@pytest.mark.parametrize(("device", "current"), [("cuda:3", [3]), ("cuda", [0]), ("cpu", [])])
def test_a_task_begins_on_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, current: list[int]
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)

    def task(config: Config, directory: Path, keep: object) -> RunResult:
        assert chosen == current
        return RunResult({})

    monkeypatch.setattr(inference, "run", task)
    assert _task(Config(task=InferenceTask(), device=device), tmp_path, keep_nothing).status == "FINISHED"


@pytest.mark.parametrize("ask", [lambda: torch.empty(2**59), lambda: np.empty(2**59)])
def test_memory_that_is_not_there_is_called_so(ask: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        ask()
    assert failure_kind(caught.value) == "out_of_memory"


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
        "Triton Error [CUDA]: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_memory_that_a_gpu_does_not_have_is_called_so(message: str) -> None:
    assert failure_kind(RuntimeError(message)) == "out_of_memory"


def wrapped(cause: bool, suppressed: bool) -> RuntimeError:
    try:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        except torch.OutOfMemoryError as error:
            if cause:
                raise RuntimeError("backend='inductor' raised") from error
            if suppressed:
                raise RuntimeError("backend='inductor' raised") from None
            raise RuntimeError("while cleaning up")  # noqa: B904 (as happens)
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(("cause", "suppressed"), [(True, False), (False, False), (False, True)])
def test_lack_of_memory_is_found_below_an_error_of_the_compiler(cause: bool, suppressed: bool) -> None:
    assert failure_kind(wrapped(cause, suppressed)) == "out_of_memory"


def test_other_errors_keep_their_names() -> None:
    error = RuntimeError("something else")
    error.__context__ = ValueError("before it")
    error.__context__.__context__ = error  # Python allows it
    assert failure_kind(error) == "RuntimeError"
