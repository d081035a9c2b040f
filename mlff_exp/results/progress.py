"""Progress of a running run: its metrics so far."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlff_exp.common import MAX_BYTES, parse_json, refuse_irregular, typed_value
from mlff_exp.results.checks import refuse_non_finite
from mlff_exp.results.result import ResultError

PROGRESS_FILE = "progress.jsonl"


@dataclass(frozen=True)
class ProgressPoint:
    """Metrics of one step, and the time of their measurement in milliseconds since 1970."""

    step: int
    metrics: Mapping[str, float]
    time_ms: int


class Progress:
    """The progress file of a run, with a line of JSON for each step; other processes may read it during the run.

    Args:
        directory: directory of the run.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / PROGRESS_FILE

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a step.

        Raises:
            ValueError: a metric is not finite. The message names it.
        """
        refuse_non_finite(metrics, f" at step {step}")
        with self._path.open("a", encoding="utf-8") as file:
            record = ProgressPoint(step, metrics, int(time.time() * 1000))
            file.write(json.dumps(dataclasses.asdict(record), allow_nan=False) + "\n")

    def read(self, position: int) -> tuple[list[ProgressPoint], int]:
        """Read the points after a position in the file.

        Returns:
            The points, and the position after them.

        Raises:
            ResultError: the file can't be read, or a line is invalid. The message names the file.
        """
        try:
            refuse_irregular(self._path, None, may_be_empty=True)
            with self._path.open("rb") as file:
                file.seek(position)
                text = file.read(MAX_BYTES)
        except FileNotFoundError:
            return [], position
        except (OSError, ValueError) as error:
            raise ResultError(f"{self._path} can't be read: {error}") from error
        complete = text[: text.rfind(b"\n") + 1]  # the last line may be incomplete
        try:
            records = [typed_value(ProgressPoint, parse_json(line.decode())) for line in complete.splitlines()]
        except (ValueError, TypeError) as error:
            raise ResultError(f"{self._path} has a line that is no record of progress: {error}") from error
        return records, position + len(complete)
