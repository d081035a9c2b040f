"""The one door to the private parts of PyTorch's compiler."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from mlff_exp.common import replace_attribute


def stop_compile_workers() -> None:
    """End the processes that Inductor compiles in; it starts others when it needs them.

    Each takes seconds of a core to start, which should not happen beside what is timed.
    """
    if "torch._inductor.async_compile" in sys.modules:
        torch._inductor.async_compile.shutdown_compile_workers()


def count_graph_breaks() -> int:
    """Graph breaks in this process so far."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled
        return 0
    return sum(dynamo_counters()["graph_break"].values())


def count_graphs() -> int:
    """Graphs that Dynamo has compiled in this process so far; one that it compiles again counts again."""
    if "torch._dynamo" not in sys.modules:
        return 0
    return dynamo_counters()["stats"]["unique_graphs"]


def dynamo_counters() -> Mapping[str, Mapping[str, int]]:
    """Dynamo's counters of this process."""
    from torch._dynamo.utils import counters

    return counters


class TimedChoiceError(RuntimeError):
    """Inductor wanted to choose by timing."""


def find_timed_choice(error: BaseException) -> TimedChoiceError | None:
    """The refusal of a choice by timing that an error is, or that Dynamo wrapped in it; None if it is another error."""
    inner = getattr(error, "inner_exception", error)
    return inner if isinstance(inner, TimedChoiceError) else None


@contextmanager
def compiling_ahead(most_threads: int) -> Iterator[None]:
    """Compile on a few threads, and leave nothing in Inductor's cache that was chosen by timing.

    Args:
        most_threads: that compile.

    Raises:
        TimedChoiceError: as `discard_timed_choices`.
    """
    import torch._inductor.config as settings

    threads = min(most_threads, settings.compile_threads or 1)
    with discard_timed_choices(), settings.patch({"compile_threads": threads}):
        yield


@contextmanager
def discard_timed_choices() -> Iterator[None]:
    """Leave nothing in Inductor's cache that was chosen by timing: other processes are using the device.

    Kernels are tuned at their first call, after the graph was kept, and only the best configuration must not be.
    Not by Inductor's ``autotune_local_cache``: kept graphs would remember that, and be tuned again in every process.
    Whether a product is padded is part of the graph: such a graph is left to its run.

    Raises:
        TimedChoiceError: where Inductor would decide about padding; from inside its own error.
    """
    from torch._inductor.fx_passes import pad_mm
    from torch._inductor.runtime.autotune_cache import AutotuneCache

    def save(self: AutotuneCache, *choice: Any, **more: Any) -> None:  # pickled by its name, so it has the same
        pass

    def refuse(*arguments: Any, **keywords: Any) -> float:
        raise TimedChoiceError("Inductor times whether to pad a product, which the run is left to do by itself")

    with replace_attribute(AutotuneCache, "save", save), replace_attribute(pad_mm, "get_do_bench", lambda: refuse):
        yield
