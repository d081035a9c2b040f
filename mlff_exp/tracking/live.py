"""A run that is going on, in MLflow from its start."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlff_exp.result import (
    Progress,
)
from mlff_exp.tracking.life import HEARTBEAT_EVERY_S, HEARTBEAT_TAG
from mlff_exp.tracking.store import Store, answering, say
from mlff_exp.tracking.upload import (
    log_points,
    note_opened,
    open_run,
)


class Live:
    """A run that is going on: in MLflow from its start, with a heartbeat, and with its progress as it comes.

    Raises:
        ConfigError: the store can't be reached at the start.
        OSError: its disk is full.
    """

    def __init__(self, store: Store, directory: Path, config: Mapping[str, Any], parent_id: str | None = None) -> None:
        self._store, self._directory, self._position = store, directory, 0
        self._progress, self._beat = Progress(directory), time.monotonic()
        with answering():
            self.run_id = open_run(store, config, directory, parent_id)
        self._note()

    def __call__(self) -> None:
        """Log what is new.

        A store that can't be reached just now is tried again the next time: no run is ended for it.
        """
        from mlflow.exceptions import MlflowException

        records, position = self._progress.read(self._position)
        try:
            if time.monotonic() - self._beat >= HEARTBEAT_EVERY_S:
                self._store.client.set_tag(self.run_id, HEARTBEAT_TAG, str(time.time()))
                self._beat = time.monotonic()
            if records:
                log_points(self._store.client, self.run_id, records)
                self._position = position
                self._note()
        except (MlflowException, OSError) as error:
            say(f"progress not in MLflow yet: {error}")

    def _note(self) -> None:
        note_opened(self._directory, self.run_id, self._position)
