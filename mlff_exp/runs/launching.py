"""Launch jobs and return the outcome of each; a job that raised or was lost does not end the sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import Any

from mlff_exp.common import DISK_ERRORS, replace_attribute


@dataclass(frozen=True)
class LostJob:
    """Takes the place of the return value of a job that was lost."""

    error: Exception

    @property
    def return_value(self) -> Any:
        """Raise the error that ended the job, as Hydra's class does."""
        raise self.error


def launch(launcher: Any, overrides: Sequence[Sequence[str]], first: int) -> list[Any]:
    """Launch jobs, and return for each its return value or the exception that ended it.

    Args:
        launcher: Hydra's launcher.
        overrides: overrides of each job.
        first: number of the first job.

    Raises:
        OSError: a disk is full, so that no result could be stored.
        KeyboardInterrupt: the launch was interrupted.
    """
    try:
        with _lost_jobs_returned(launcher):
            returned = launcher.launch(overrides, initial_job_idx=first)
    except Exception as error:
        returned = [LostJob(error)] * len(overrides)
    return [_return_value(job) for job in returned]


def _return_value(job: Any) -> Any:
    try:
        # Hydra would print the overrides of a failed job, with passwords.
        with redirect_stderr(StringIO()):
            return job.return_value
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        return error


@contextmanager
def _lost_jobs_returned(launcher: Any) -> Iterator[None]:
    """Make submitit return a lost job instead of raising: the error would hide the results of the other jobs."""
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
