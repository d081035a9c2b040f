"""Write tables and figures after the result is saved. A file that can't be written causes a warning, and no failure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from mlff_exp.common import mask_secrets, write_below_bars
from mlff_exp.results import NOT_WRITTEN, RunResult

Keep = Callable[[RunResult], object]


def keep_nothing(result: RunResult) -> None:
    """Do nothing with a result; for callers that use the value that a task returns."""


def with_files(result: RunResult, directory: Path, writers: Mapping[str, Callable[[Path], object]]) -> RunResult:
    """Write files, and add those that could be written to the artifacts of a result.

    Args:
        result: a result that was saved already.
        directory: the directory of the run.
        writers: functions by name of the file; each is called with the path of its file.

    Returns:
        The result with more artifacts, and a tag that names the files that could not be written.
    """
    written, missing = list(result.artifacts), []
    for name, write in writers.items():
        path = directory / name
        try:
            write(path)
        except Exception as error:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)  # no incomplete file stays
            missing.append(mask_secrets(f"{name}: {type(error).__name__}: {error}"))
            write_below_bars(f"mlff-exp: warning: the result is safe, but a file was not written: {missing[-1]}")
        else:
            written.append(name)
    tags = {NOT_WRITTEN: "; ".join(missing)} if missing else {}
    return replace(result, artifacts=tuple(written), tags={**result.tags, **tags})
