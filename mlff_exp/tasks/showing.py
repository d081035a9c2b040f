"""Files for people, written once the numbers are safe; one that can't be written costs a warning and no result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from mlff_exp.common import mask_secrets, write_below_bars
from mlff_exp.results import NOT_WRITTEN, RunResult

Keep = Callable[[RunResult], object]


def keep_nothing(result: RunResult) -> None:
    """For callers that take what a task returns."""


def with_files(result: RunResult, directory: Path, writers: Mapping[str, Callable[[Path], object]]) -> RunResult:
    """The result with the files that could be written among its artifacts.

    Args:
        result: that was kept already.
        directory: of the run.
        writers: by the name of the file that each writes; called with its path.
    """
    written, missing = list(result.artifacts), []
    for name, write in writers.items():
        path = directory / name
        try:
            write(path)
        except Exception as error:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)  # half a file is worse than none
            missing.append(mask_secrets(f"{name}: {type(error).__name__}: {error}"))
            write_below_bars(f"mlff-exp: warning: the result is safe, but a file was not written: {missing[-1]}")
        else:
            written.append(name)
    tags = {NOT_WRITTEN: "; ".join(missing)} if missing else {}
    return replace(result, artifacts=tuple(written), tags={**result.tags, **tags})
