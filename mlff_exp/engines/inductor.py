"""The only module that uses private parts of PyTorch's compiler."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from mlff_exp.common import replace_attribute


def import_compiler() -> None:
    """Import Inductor, which takes seconds; later compilations then do without this delay."""
    import torch._inductor.compile_fx  # noqa: F401


def stop_compile_workers() -> None:
    """Stop the processes in which Inductor compiles; it starts new ones when it needs them.

    Starting one takes seconds of a core, which would disturb a timing.
    """
    if "torch._inductor.async_compile" in sys.modules:
        torch._inductor.async_compile.shutdown_compile_workers()


def count_graph_breaks() -> int:
    """Return the number of graph breaks in this process so far."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled
        return 0
    return sum(dynamo_counters()["graph_break"].values())


def count_graphs() -> int:
    """Return how many graphs Dynamo has compiled in this process so far; recompiled graphs count again."""
    if "torch._dynamo" not in sys.modules:
        return 0
    return dynamo_counters()["stats"]["unique_graphs"]


def dynamo_counters() -> Mapping[str, Mapping[str, int]]:
    """Return Dynamo's counters of this process."""
    from torch._dynamo.utils import counters

    return counters


class TimedChoiceError(RuntimeError):
    """Inductor tried to choose a kernel by timing."""


def find_timed_choice(error: BaseException) -> TimedChoiceError | None:
    """Return the `TimedChoiceError` that an error is or that Dynamo wrapped; None if there is none."""
    inner = getattr(error, "inner_exception", error)
    return inner if isinstance(inner, TimedChoiceError) else None


@contextmanager
def compiling_ahead(most_threads: int) -> Iterator[None]:
    """Compile on a few threads, and keep nothing in Inductor's cache that was chosen by timing.

    Args:
        most_threads: largest number of compiler threads.

    Raises:
        TimedChoiceError: as `discard_timed_choices`.
    """
    import torch._inductor.config as settings

    threads = min(most_threads, settings.compile_threads or 1)
    with discard_timed_choices(), settings.patch({"compile_threads": threads}):
        yield


@contextmanager
def discard_timed_choices() -> Iterator[None]:
    """Keep nothing in Inductor's cache that was chosen by timing, because other processes use the device.

    Kernels are tuned at their first call, after the graph was cached; the chosen configuration must not be cached.
    Inductor's option ``autotune_local_cache`` is no solution: cached graphs would remember it, and every process would
    tune them again. Whether a product is padded is part of the graph, so such a graph is compiled by its run only.

    Raises:
        TimedChoiceError: Inductor would choose padding by timing. Dynamo wraps the error.
    """
    from torch._inductor.fx_passes import pad_mm
    from torch._inductor.runtime.autotune_cache import AutotuneCache

    def save(self: AutotuneCache, *choice: Any, **more: Any) -> None:  # pickled by its name, so it has the same
        pass

    def refuse(*arguments: Any, **keywords: Any) -> float:
        raise TimedChoiceError("Inductor times whether to pad a product, which the run is left to do by itself")

    with replace_attribute(AutotuneCache, "save", save), replace_attribute(pad_mm, "get_do_bench", lambda: refuse):
        yield


def compile_graph(module: GraphModule, inputs: Sequence[Tensor]) -> Any:
    """Compile a graph for these inputs, without Dynamo, as what `save_compiled` can write.

    Args:
        module: a graph without attributes.
        inputs: tensors of its shapes.
    """
    return torch._inductor.standalone_compile(module, list(inputs), dynamic_shapes="from_example_inputs")


def save_compiled(compiled: Any, path: Path) -> None:
    """Write a compiled graph to a file."""
    compiled.save(path=str(path), format="binary")


def load_compiled(path: Path) -> Any:
    """Read a compiled graph. The file holds code: read only what this user has written."""
    return torch._inductor.CompiledArtifact.load(path=str(path), format="binary")  # type: ignore[attr-defined]


def cache_directory() -> Path | None:
    """Return where Inductor keeps compiled kernels of this user; None if its caches are switched off."""
    import torch._inductor.config as settings
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return Path(cache_dir()) if settings.fx_graph_cache and not settings.force_disable_caches else None
