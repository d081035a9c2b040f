"""The one door to the private parts of PyTorch's compiler."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch


def end_compilers() -> None:
    """End the processes that Inductor compiles in; it starts others when it needs them.

    Each takes seconds of a core to start, which should not happen beside what is timed.
    """
    if "torch._inductor.async_compile" in sys.modules:
        torch._inductor.async_compile.shutdown_compile_workers()


def graph_breaks() -> int:
    """Graph breaks in this process so far."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled
        return 0
    return sum(dynamo_counters()["graph_break"].values())


def graphs_compiled() -> int:
    """Graphs that Dynamo has compiled in this process so far; one that it compiles again counts again."""
    if "torch._dynamo" not in sys.modules:
        return 0
    return dynamo_counters()["stats"]["unique_graphs"]


def dynamo_counters() -> Mapping[str, Mapping[str, int]]:
    """Dynamo's counters of this process."""
    from torch._dynamo.utils import counters

    return counters
