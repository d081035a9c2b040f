"""Record runs that did not finish."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlff_exp.common import mask_secrets
from mlff_exp.results import Failure, RunResult, Status

TRACEBACK_FILE = "traceback.txt"


def write_traceback(directory: Path, error: BaseException) -> None:
    """Write the traceback of an error into a run's directory, without secrets."""
    text = "".join(traceback.format_exception(error))
    (directory / TRACEBACK_FILE).write_text(mask_secrets(text), encoding="utf-8")


def record_failure(
    directory: Path, resolved: Mapping[str, Any], status: Status, failure: Failure, duration_s: float | None = None
) -> RunResult:
    """Write the result of a run that did not finish, with a traceback that is in its directory.

    Args:
        directory: directory of the run; exists.
        resolved: the configuration as plain values.
        status: FAILED, KILLED or SKIPPED.
        failure: the reason; secrets in its message are masked.
        duration_s: duration of the run's process, s; None if there was none.
    """
    artifacts = (TRACEBACK_FILE,) if (directory / TRACEBACK_FILE).is_file() else ()
    result = RunResult(
        config=resolved,
        status=status,
        failure=Failure(failure.kind, mask_secrets(failure.message)),
        artifacts=artifacts,
        duration_s=duration_s,
    )
    result.save(directory)
    return result
