"""What the process boundary promises; whole commands are in test_cli.py."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest

from mlff_exp import worker
from mlff_exp.config import Config, InferenceTask
from mlff_exp.result import RunResult


class InterruptedWhileStarting(SpawnProcess):
    def start(self) -> None:
        super().start()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)  # where Python would raise KeyboardInterrupt


def test_an_interrupt_while_the_worker_starts_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = InterruptedWhileStarting(target=time.sleep, args=(600,))

    def fake(*arguments: Any) -> InterruptedWhileStarting:
        return process

    monkeypatch.setattr(worker, "_process", fake)
    with pytest.raises(KeyboardInterrupt):
        worker.run_task(Config(task=InferenceTask()), {}, tmp_path)
    assert not process.is_alive()
    failure = RunResult.load(tmp_path).failure
    assert failure is not None
    assert failure.kind == "interrupted"
