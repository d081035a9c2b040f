"""Record the outcomes of a sweep's jobs, also of those that left no result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from mlff_exp.config import UnavailableError
from mlff_exp.results import RESULT_FILE, Failure, FailureKind, RunResult, Status
from mlff_exp.runs.failures import record_failure, write_traceback
from mlff_exp.runs.outcome import Outcome
from mlff_exp.runs.preparing import Job
from mlff_exp.tracking import CONFIG_FILE, Store, record_run


@dataclass(frozen=True)
class Recorder:
    """Records jobs on disk and in MLflow.

    Attributes:
        directory: directory of the sweep.
        sweep_id: id of its run in MLflow, or None.
        store: the store, or None.
    """

    directory: Path
    sweep_id: str | None = None
    store: Store | None = None

    def recorded(self, number: int) -> Outcome:
        """Return the outcome of a job that has left a result."""
        run_directory = self.directory / str(number)
        self._upload(run_directory)  # does nothing if the job has done it
        return Outcome.of(RunResult.load(run_directory), run_directory)

    def skipped(self, job: Job, number: int) -> Outcome:
        """Record a job that can't run on this machine."""
        return self._record(job, number, "SKIPPED", Failure(FailureKind.UNAVAILABLE, job.unavailable or ""))

    def failed(self, job: Job, number: int, error: Exception) -> Outcome:
        """Record a job that returned nothing: it was refused where it should run, raised an error, or was lost.

        Args:
            job: a job of the sweep.
            number: number of the job.
            error: the error that the job raised, or that says how it was lost.
        """
        run_directory = self.directory / str(number)
        if (run_directory / RESULT_FILE).is_file():  # it was lost after it had finished
            return self.recorded(number)
        run_directory.mkdir(parents=True, exist_ok=True)
        write_traceback(run_directory, error)
        unavailable = isinstance(error, UnavailableError)
        failure = Failure(FailureKind.UNAVAILABLE if unavailable else type(error).__name__, str(error))
        # A gate without a verdict has failed.
        return self._record(job, number, "SKIPPED" if unavailable and not job.gate else "FAILED", failure)

    def _record(self, job: Job, number: int, status: Status, failure: Failure) -> Outcome:
        """Write the files that a run would have written."""
        run_directory = self.directory / str(number)
        run_directory.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(job.resolved), run_directory / CONFIG_FILE)
        result = record_failure(run_directory, job.resolved, status, failure)
        self._upload(run_directory)
        return Outcome.of(result, run_directory)

    def _upload(self, run_directory: Path) -> None:
        if self.store is not None:
            record_run(self.store, run_directory, self.sweep_id)
