"""Run one task in a fresh process: a timeout, a crash and lack of memory become recorded failures."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mlff_exp.common import (
    SIGNAL_ORIGINS,
    HungUp,
    Terminated,
    interrupts_postponed,
    learn_secrets,
    load_object,
    mask_secrets,
    printable_streams,
)
from mlff_exp.config import Config
from mlff_exp.results import RESULT_FILE, Failure, FailureKind, RunResult
from mlff_exp.runs.failures import record_failure, write_traceback
from mlff_exp.runs.outside_metrics import add_outside_metrics, copy_outside_metrics
from mlff_exp.runs.sessions import begin_session, signal_session, start_server
from mlff_exp.tasks import TASKS, compiles

GRACE_S = 5.0
POLL_EVERY_S = 5.0
# What these modules import is inherited by every worker.
PRELOAD = ["mlff_exp.tasks.preloading"]
PRELOAD_TO_COMPILE = ["mlff_exp.engines.preloading"]

INTERRUPT_KINDS = {
    KeyboardInterrupt: FailureKind.INTERRUPTED,
    Terminated: FailureKind.TERMINATED,
    HungUp: FailureKind.HUNG_UP,
}


class NotStartedError(RuntimeError):
    """A process could not be started."""


def run_task(
    config: Config, resolved: Mapping[str, Any], directory: Path, on_poll: Callable[[], None] | None = None
) -> RunResult:
    """Run a task in its own process and return the result that it left in ``directory``.

    Nothing that one run compiles, allocates or sets affects the next, except the compile cache on disk. There is always
    a ``result.json`` afterwards, however the process ended.

    Args:
        config: the checked configuration.
        resolved: the same as plain values, to be recorded.
        directory: directory of the run; exists.
        on_poll: called every few seconds while the process runs.

    Raises:
        KeyboardInterrupt: after the process was stopped and the run was recorded as killed.
    """
    started = time.monotonic()
    with recorded_if_interrupted(resolved, directory):
        # Made in the parent, because a killed process removes nothing.
        cold = tempfile.TemporaryDirectory(ignore_cleanup_errors=True) if config.cold_compile else None
        with cold or contextlib.nullcontext() as cold_cache:
            process = _process(config, resolved, directory, cold_cache)
            try:
                in_time = _ended_in_time(process, config.timeout_s, on_poll)
            except NotStartedError as error:
                return _left(directory, resolved, started, "FAILED", Failure(FailureKind.CRASH, str(error)))
    if not in_time:
        failure = Failure(FailureKind.TIMEOUT, f"stopped after timeout_s={config.timeout_s:g}")
        return _left(directory, resolved, started, "KILLED", failure)
    killed = (process.exitcode or 0) < 0
    failure = Failure(FailureKind.KILLED if killed else FailureKind.CRASH, describe_exit(process))
    return _left(directory, resolved, started, "KILLED" if killed else "FAILED", failure)


@contextlib.contextmanager
def recorded_if_interrupted(resolved: Mapping[str, Any], directory: Path) -> Iterator[None]:
    """Record a killed run if an interrupt, SIGTERM or SIGHUP ends the block before there is a result.

    Args:
        resolved: the configuration as plain values.
        directory: directory of the run; exists.
    """
    started = time.monotonic()
    try:
        yield
    except KeyboardInterrupt as interrupt:
        kind, origin = INTERRUPT_KINDS[type(interrupt)], SIGNAL_ORIGINS[type(interrupt)]
        _left(directory, resolved, started, "KILLED", Failure(kind, f"{kind.replace('_', ' ')} {origin}"))
        raise


def _ended_in_time(process: BaseProcess, timeout_s: float, on_poll: Callable[[], None] | None) -> bool:
    """Start a process, wait for its end, and return whether it ended in time; it is always stopped afterwards."""
    try:
        with interrupts_postponed():
            start_process(process)
        deadline = time.monotonic() + timeout_s
        while process.is_alive() and (left := deadline - time.monotonic()) > 0:
            process.join(min(left, POLL_EVERY_S))
            if on_poll is not None:
                on_poll()
        return not process.is_alive()
    finally:
        _stop(process)


def start_process(process: BaseProcess) -> None:
    """Start a process of `fork_server`.

    Raises:
        NotStartedError: the server has ended, for example because an import failed; its message is on stderr.
    """
    try:
        process.start()
    except (EOFError, ConnectionError) as error:
        raise NotStartedError(
            "the process that runs are started from has ended; its own message is on stderr, further up"
        ) from error


def describe_exit(process: BaseProcess) -> str:
    """Return how a process ended that left no result."""
    code = process.exitcode or 0
    if code >= 0:
        return f"the process ended with code {code}"
    name = signal.Signals(-code).name
    hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
    return f"the process was ended by {name}{hint}"


def _process(config: Config, resolved: Mapping[str, Any], directory: Path, cold_cache: str | None) -> BaseProcess:
    of = fork_server(compiles=compiles(config))
    return of.Process(target=_child, args=(config, resolved, directory, cold_cache))


def fork_server(*, compiles: bool) -> ForkServerContext:
    """Return a context whose processes have everything imported; the first call decides what.

    The imports must not initialise a GPU, because that would not survive the fork. The compiler asks during its import
    whether there is a GPU; PyTorch then asks the driver's management library instead.

    Args:
        compiles: whether to import the compiler as well; otherwise each run that compiles imports it.
    """
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD + (PRELOAD_TO_COMPILE if compiles else []))
    start_server()
    return context


def _child(config: Config, resolved: Mapping[str, Any], directory: Path, cold_cache: str | None) -> None:
    with printable_streams():
        _run(config, resolved, directory, cold_cache)


def _run(config: Config, resolved: Mapping[str, Any], directory: Path, cold_cache: str | None) -> None:
    started = time.monotonic()
    begin_session()
    learn_secrets([resolved, asdict(config)])
    if cold_cache is not None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cold_cache
        # For kernels that do not come from Inductor.
        os.environ["TRITON_CACHE_DIR"] = f"{cold_cache}/triton"
    kept: RunResult | None = None

    def keep(result: RunResult) -> None:
        nonlocal kept
        result = replace(result, config=resolved, duration_s=time.monotonic() - started)
        kept = add_outside_metrics(result) if kept is None else copy_outside_metrics(kept, result)
        kept.save(directory)

    try:
        keep(_task(config, directory, keep))
    # Not swallowed: it becomes the recorded result of this run, with its traceback.
    except Exception as error:
        # The numbers are already recorded; a later error must not replace them.
        if kept is not None:
            sys.exit(
                mask_secrets(
                    f"mlff-exp: the result is safe, but not all that belongs to it: {failure_kind(error)}: {error}"
                )
            )
        try:
            write_traceback(directory, error)
            failure = Failure(failure_kind(error), str(error))
            record_failure(directory, resolved, "FAILED", failure, time.monotonic() - started)
        except OSError as unwritable:
            sys.exit(mask_secrets(f"mlff-exp: {failure_kind(error)}: {error}; it can't be recorded: {unwritable}"))


def use_device(device: str) -> None:
    """Make a GPU the current one, because events, streams and graphs belong to the current device."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.set_device(torch.device(device).index or 0)


def _task(config: Config, directory: Path, keep: Callable[[RunResult], object]) -> RunResult:
    """Run the task; it passes its numbers to ``keep`` before it writes figures and tables."""
    use_device(config.device)
    # Imported here: the parent needs neither torch nor the tasks.
    run: Callable[..., RunResult] = load_object(TASKS[config.task.name].run)
    return run(config, directory, keep)


def failure_kind(error: Exception) -> str:
    """Return the kind of an error for the record."""
    from mlff_exp.engines import is_out_of_memory

    return FailureKind.OUT_OF_MEMORY if is_out_of_memory(error) else type(error).__name__


def _left(directory: Path, resolved: Mapping[str, Any], started: float, status: Any, failure: Failure) -> RunResult:
    """Return the result that the process left, or record now that there is none."""
    if (directory / RESULT_FILE).is_file():  # even if the process failed afterwards
        return RunResult.load(directory)
    return record_failure(directory, resolved, status, failure, time.monotonic() - started)


def _stop(process: BaseProcess) -> None:
    """End a process and its children, which may outlive it."""
    if process.pid is None:
        return
    if process.is_alive():
        signal_session(process, signal.SIGTERM)
        process.join(GRACE_S)
    signal_session(process, signal.SIGKILL)
    process.join(GRACE_S)
