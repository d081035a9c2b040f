"""Fill Inductor's cache before the first run of a sweep, in several processes.

A run compiles on one core for much longer than it measures. A run that finds its graphs in the cache starts in seconds.
Nothing in the parent process imports torch.
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
from mlff_exp.tasks import TASKS, engines_of, precisions

MAX_PROCESSES = 16
COMPILE_THREADS = 2  # of each process


@dataclass(frozen=True)
class _Started:
    name: str
    process: ForkServerProcess
    reason: Connection

    def failure(self) -> str:
        """Return why an ended process did not compile everything; empty if it did."""
        try:
            return str(self.reason.recv())
        except EOFError:
            return describe_exit(self.process)


def fill_cache(jobs: Mapping[str, Config], budget_s: float | None = None) -> None:
    """Compile the graphs that the jobs will need, on all cores; no process is left afterwards.

    A failure is printed as a line on stderr: the run will compile by itself, or fail.

    Args:
        jobs: by the name under which failures are reported; each can run on this machine.
        budget_s: stop after this time, or after the shortest ``timeout_s`` of the jobs, s.

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
    """Return the engines to compile, each at one precision, by name; engines that several jobs need occur once.

    `EngineSpec.ahead` says what is compiled for an engine: a graph that is captured is one that
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
            # The engines of task.baselines run only at the precision of the run.
            for precision in precisions(config) if key == "engine" else [config.precision.name]:
                one = replace(config, engine=engine, precision=PrecisionConfig(precision))
                label = "/".join(filter(None, [engine.name, getattr(engine, "mode", "")]))
                found.setdefault(_graphs(one), (f"{name} ({label} {precision})", one))
    # Other modes have the same kernels and come last: they find the kernels in the cache.
    return dict(sorted(found.values(), key=lambda item: getattr(item[1].engine, "mode", "default") != "default"))


def _graphs(config: Config) -> str:
    """Return a text that is equal for two jobs whose engines compile the same graphs."""
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
    """Kill processes and their children; Inductor's cache has only complete entries."""
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
    """Return an error in one line; a `TimedChoiceError` is returned without its kind."""
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
    model = prepare_model(config)
    # As many threads for arithmetic as in a run: graphs for a CPU depend on the number.
    with compiling_ahead(COMPILE_THREADS):
        shapes = {batch.shape_key: batch for batch in batches(config, model)}
        for batch in list(shapes.values())[share :: task.shares]:
            model.engine(batch)
