"""The outcome of a job, small enough for any launcher, and the exit code of a command."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlff_exp.common import hydra_override, shell_command
from mlff_exp.config import Tracking
from mlff_exp.results import STATE_FILE, FailureKind, RunResult, Status, label
from mlff_exp.tracking import store_directory, ui_command

EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_NO_GO = 3
EXIT_INCOMPLETE = 4
EXIT_HUNG_UP = 129
EXIT_INTERRUPTED = 130  # 128 and the number of the signal, as shells say it
EXIT_TERMINATED = 143


@dataclass(frozen=True)
class Outcome:
    """The outcome of one job."""

    label: str
    directory: Path
    status: Status
    decision: str | None
    failure_kind: str | None
    failure_message: str | None

    @staticmethod
    def of(result: RunResult, directory: Path) -> Outcome:
        """Make the outcome of a result."""
        failure = result.failure
        return Outcome(
            label(result.config),
            directory,
            result.status,
            None if result.verdict is None else result.verdict.decision,
            None if failure is None else failure.kind,
            None if failure is None else failure.message,
        )

    @property
    def failed(self) -> bool:
        """Whether the job started and did not finish."""
        return self.status in ("FAILED", "KILLED")

    @property
    def refused(self) -> bool:
        """Whether the task refused the configuration when it read the files that the configuration names."""
        return self.failure_kind == FailureKind.REFUSED

    def summary(self, tracking: Tracking) -> str:
        """Return lines that say what failed, and where the results are."""
        lines = []
        if self.status != "FINISHED":
            lines.append(f"{self.status}: {self.label}: {self.failure_kind}: {self.failure_message}")
        if (self.directory / STATE_FILE).is_file():
            lines.append(
                f"to go on from its last state: {shell_command(hydra_override('task.resume', self.directory))}"
            )
        lines.append(f"results: {self.directory}")
        lines.append(where_to_look(tracking))
        return "\n".join(lines)


def where_to_look(tracking: Tracking) -> str:
    """Return a line that says how to open the results in MLflow."""
    if tracking.name == "offline":
        return "not in MLflow yet: mlff-exp-sync <directory>"
    if tracking.name == "server":
        return "MLflow: the server at MLFLOW_TRACKING_URI"
    return f"MLflow: {ui_command(store_directory(tracking))} (in a checkout: make ui)"


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """1 if anything failed, else 3 for a NO-GO or an UNDECIDED, else 0."""
    outcomes = list(outcomes)
    if any(outcome.failed for outcome in outcomes):
        return EXIT_FAILED
    return EXIT_NO_GO if any(outcome.decision in ("NO-GO", "UNDECIDED") for outcome in outcomes) else 0
