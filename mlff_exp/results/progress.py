"""Metrics of a run that is still going on."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlff_exp.common import MAX_BYTES, parse_json, typed_value
from mlff_exp.results.checks import refuse_non_finite
from mlff_exp.results.result import ResultError

PROGRESS_FILE = "progress.jsonl"


@dataclass(frozen=True)
class ProgressPoint:
    """Metrics of one step, and when they were measured, in milliseconds since 1970."""

    step: int
    metrics: Mapping[str, float]
    time_ms: int


class Progress:
    """Metrics of a run that is still going on, a line of JSON each; whoever watches the directory may read along."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / PROGRESS_FILE

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a step.

        Raises:
            ValueError: one of them is not finite, naming it.
        """
        refuse_non_finite(metrics, f" at step {step}")
        with self._path.open("a", encoding="utf-8") as file:
            record = ProgressPoint(step, metrics, int(time.time() * 1000))
            file.write(json.dumps(dataclasses.asdict(record), allow_nan=False) + "\n")

    def read(self, position: int) -> tuple[list[ProgressPoint], int]:
        """What was written since a position in the file, and the position to go on from.

        Raises:
            ResultError: a line that is no record, naming the file.
        """
        if not self._path.is_file():
            return [], position
        with self._path.open("rb") as file:
            file.seek(position)
            text = file.read(MAX_BYTES)
        whole = text[: text.rfind(b"\n") + 1]  # the last line may still be written
        try:
            records = [typed_value(ProgressPoint, parse_json(line.decode())) for line in whole.splitlines()]
        except (ValueError, TypeError) as error:
            raise ResultError(f"{self._path} has a line that is no record of progress: {error}") from error
        return records, position + len(whole)
