"""Launches jobs and returns what each of them came to: a job that raised or was lost does not end the sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import Any

from mlff_exp.common import DISK_ERRORS, replace_attribute


@dataclass(frozen=True)
class LostJob:
    """Stands for what a job would have returned."""

    error: Exception

    @property
    def return_value(self) -> Any:
        """As Hydra's: raises what ended the job."""
        raise self.error


def launch(launcher: Any, overrides: Sequence[Sequence[str]], first: int) -> list[Any]:
    """Launch jobs and return for each what it returned, or else the exception that ended it.

    Args:
        launcher: Hydra's.
        overrides: of each job.
        first: number of the first job.

    Raises:
        OSError: a disk is full, and nothing that is run now could be kept.
        KeyboardInterrupt: as it came.
    """
    try:
        with _lost_jobs_returned(launcher):
            returned = launcher.launch(overrides, initial_job_idx=first)
    except Exception as error:
        returned = [LostJob(error)] * len(overrides)
    return [_came_to(job) for job in returned]


def _came_to(job: Any) -> Any:
    try:
        # Hydra would print the overrides of what raised, passwords and all.
        with redirect_stderr(StringIO()):
            return job.return_value
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        return error


@contextmanager
def _lost_jobs_returned(launcher: Any) -> Iterator[None]:
    """Let submitit return a job that was lost: raised, its error would hide the results of its array."""
    if "submitit" not in type(launcher).__module__:
        yield
        return
    from submitit.core.core import Job

    results = Job.results

    def kept(job: Any) -> list[Any]:
        try:
            return list(results(job))
        except Exception as error:
            return [LostJob(error)]

    with replace_attribute(Job, "results", kept):
        yield
