"""A running run that is in MLflow from its start."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlff_exp.results import Progress
from mlff_exp.tracking.describe import run_name, valid_point
from mlff_exp.tracking.faults import disk_errors, first_line, is_permanent, say_on_stderr, store_must_answer
from mlff_exp.tracking.heartbeat import HEARTBEAT_EVERY_S, HEARTBEAT_TAG
from mlff_exp.tracking.markers import write_opened
from mlff_exp.tracking.store import Store
from mlff_exp.tracking.upload import log_points, open_run


class ActiveRun:
    """A running run: MLflow has it from its start, with heartbeats and the progress so far.

    Args:
        store: the store of the run.
        directory: directory of the run.
        config: the recorded configuration.
        parent_id: id of the sweep's run, if there is one.

    Raises:
        ConfigError: the store does not answer at the start.
        OSError: its disk is full.
    """

    def __init__(self, store: Store, directory: Path, config: Mapping[str, Any], parent_id: str | None = None) -> None:
        self._store, self._directory = store, directory
        self._progress, self._beat = Progress(directory), time.monotonic()
        self._trouble, self._refused = "", False
        with store_must_answer(), disk_errors():
            self._opened = open_run(store, run_name(config), directory, parent_id)
        self.run_id = self._opened.run_id

    def __call__(self) -> None:
        """Log the new progress.

        If the store does not answer, the next call tries again: this ends no run. The same error is printed once.
        """
        from mlflow.exceptions import MlflowException

        if self._refused:  # the run was deleted, perhaps; its result makes a new one at the end
            return
        records, position = self._progress.read(self._opened.position)
        try:
            if time.monotonic() - self._beat >= HEARTBEAT_EVERY_S:
                self._store.client.set_tag(self.run_id, HEARTBEAT_TAG, str(time.time()))
                self._beat = time.monotonic()
            if records:
                log_points(self._store.client, self.run_id, [valid_point(record) for record in records])
                self._opened = replace(self._opened, position=position)
                write_opened(self._directory, self._opened)
            self._trouble = ""
        except (MlflowException, OSError) as error:
            self._refused = isinstance(error, MlflowException) and is_permanent(error)
            if (trouble := first_line(error)) != self._trouble:
                say_on_stderr(f"progress not in MLflow {'' if self._refused else 'yet'}: {trouble}".replace(" :", ":"))
            self._trouble = trouble

    def discard(self) -> None:
        """Delete the run from MLflow, because its configuration was refused."""
        from mlflow.exceptions import MlflowException

        try:
            self._store.client.delete_run(self.run_id)
        except (MlflowException, OSError) as error:
            say_on_stderr(f"run {self.run_id} was refused, and can't be deleted from MLflow: {first_line(error)}")
