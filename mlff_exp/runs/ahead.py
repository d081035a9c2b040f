"""Before the first run of a sweep: processes that fill Inductor's cache with the graphs that its runs will ask for.

A run compiles on one core for much longer than it measures; one that finds its graphs in the cache begins in seconds.
Nothing in the parent imports torch.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess

from mlff_exp.common import interrupts_postponed, load_object, progress_bar, write_below_bars
from mlff_exp.config import NATIVE, Config, PrecisionConfig
from mlff_exp.runs.sessions import begin_session, signal_session
from mlff_exp.runs.worker import NotStartedError, describe_exit, failure_kind, fork_server, start_process, use_device
from mlff_exp.tasks import TASKS, engines_of

MAX_PROCESSES = 16
COMPILE_THREADS = 2  # of each process


@dataclass(frozen=True)
class _Started:
    name: str
    process: ForkServerProcess
    reason: Connection

    def failure(self) -> str:
        """Why it did not compile all, once it has ended; empty if it did."""
        try:
            return str(self.reason.recv())
        except EOFError:
            return describe_exit(self.process)


def fill_cache(jobs: Mapping[str, Config], budget_s: float | None = None) -> None:
    """Compile what the jobs will ask for, on all cores; no process is left afterwards.

    What fails here is a line on stderr: its run will fail by itself, or compile.

    Args:
        jobs: by the name under which failures are reported; each can run on this machine.
        budget_s: stop after so many seconds, or after the shortest of the jobs' ``timeout_s``.

    Raises:
        KeyboardInterrupt: after the processes were stopped.
    """
    waiting = [
        (name, config, share)
        for name, config in select_to_compile(jobs).items()
        for share in range(TASKS[config.task.name].shares)
    ]
    if not waiting:
        return
    timeout_s = min(config.timeout_s for _, config, _ in waiting)
    deadline = time.monotonic() + min(timeout_s, math.inf if budget_s is None else budget_s)
    running: dict[int, _Started] = {}
    try:
        with progress_bar(total=len(waiting), desc="compiling ahead", unit="job") as bar:
            while waiting or running:
                while waiting and len(running) < min(os.cpu_count() or 1, MAX_PROCESSES):
                    with interrupts_postponed():
                        started = _start(*waiting.pop(0))
                        running[started.process.sentinel] = started
                ended = wait(list(running), max(deadline - time.monotonic(), 0.0))
                if not ended:
                    _say(f"compiling ahead was stopped, its time was up: {len(waiting) + len(running)} jobs are left")
                    return
                for one in [running.pop(sentinel) for sentinel in list(running) if sentinel in ended]:
                    _stop([one])
                    if failure := one.failure():
                        _say(f"not compiled ahead: {one.name}: {failure}")
                    bar.update()
    except NotStartedError as error:
        _say(f"not compiled ahead: {error}")
    finally:
        _stop(list(running.values()))


def select_to_compile(jobs: Mapping[str, Config]) -> dict[str, Config]:
    """Engines to compile at one precision each, by name; what several jobs will ask for is there once.

    What is compiled for an engine is what its `EngineSpec.ahead` gives: a graph that is captured is one that
    ``engine=compile engine.mode=default`` compiles as well. A run with ``cold_compile`` compiles by itself.
    """
    found: dict[str, tuple[str, Config]] = {}
    for name, config in jobs.items():
        if config.engine.name == NATIVE or TASKS[config.task.name].batches is None or config.cold_compile:
            continue
        for key, spec in engines_of(config):
            engine = spec.ahead(config.engine if key == "engine" else spec.options())
            if engine is None:
                continue
            # What is timed besides runs at the precision of the run alone.
            for precision in config.precisions if key == "engine" else [config.precision.name]:
                one = replace(config, engine=engine, precision=PrecisionConfig(precision))
                label = "/".join(filter(None, [engine.name, getattr(engine, "mode", "")]))
                found.setdefault(_graphs(one), (f"{name} ({label} {precision})", one))
    # Another mode's kernels are the same: it begins when they are there, and has only the code around them to make.
    return dict(sorted(found.values(), key=lambda item: getattr(item[1].engine, "mode", "default") != "default"))


def _graphs(config: Config) -> str:
    """The same for two jobs whose engines compile the same."""
    shaping = [getattr(config.task, name) for name in TASKS[config.task.name].shaping]
    what = (config.model, config.device, config.engine, config.precision, config.system, config.batch_size)
    return repr((*what, config.task.name, *shaping))


def _start(name: str, config: Config, share: int) -> _Started:
    context = fork_server(compiles=True)
    reason, writer = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(config, share, writer))
    start_process(process)
    writer.close()
    return _Started(name, process, reason)


def _stop(started: list[_Started]) -> None:
    """End processes and whatever they have left running; Inductor's cache holds whole entries only."""
    for one in started:
        signal_session(one.process, signal.SIGKILL)
    for one in started:
        one.process.join()


def _say(line: str) -> None:
    write_below_bars(f"mlff-exp: {line}")


def _child(config: Config, share: int, reason: Connection) -> None:
    begin_session()
    failure = ""
    try:
        use_device(config.device)
        _first_calls(config, share)
    # Not swallowed: it becomes a line on stderr, and the run itself will fail with a traceback.
    except Exception as error:
        failure = describe_error(error)
    reason.send(failure)


def describe_error(error: Exception) -> str:
    """One line; what was refused here on purpose is no error of the compiler's."""
    from mlff_exp.engines import find_timed_choice

    if (refused := find_timed_choice(error)) is not None:
        return str(refused)
    return ": ".join([failure_kind(error), " ".join(str(error).split("\n")[:2]).strip()])


def _first_calls(config: Config, share: int) -> None:
    # Imported here: they import PyTorch.
    from mlff_exp.engines import compiling_ahead
    from mlff_exp.tasks import prepare_model

    task = TASKS[config.task.name]
    batches = load_object(str(task.batches))
    subject = prepare_model(config)
    # As many threads for the arithmetic as a run has: graphs for a CPU depend on it.
    with compiling_ahead(COMPILE_THREADS):
        shapes = {batch.shape_key: batch for batch in batches(config, subject)}
        for batch in list(shapes.values())[share :: task.shares]:
            subject.engine(batch)
