"""Which runs still go on?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from mlff_exp.tracking.heartbeat import HEARTBEAT_TAG, HOST_TAG, PID_TAG, SILENT_S, heartbeat_tags, is_alive


def run(**tags: object) -> Any:
    return SimpleNamespace(
        data=SimpleNamespace(tags={**heartbeat_tags(Path()), **{k: str(v) for k, v in tags.items()}})
    )


def test_a_run_is_alive_while_its_process_exists() -> None:
    assert is_alive(run())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not is_alive(run(**{PID_TAG: ended.pid}))


def test_a_number_that_another_process_got_later_is_no_sign_of_life() -> None:
    started = psutil.Process().create_time()
    assert not is_alive(run(**{HEARTBEAT_TAG: started - 3600}))
    assert is_alive(run(**{HEARTBEAT_TAG: started - 1}))
    assert is_alive(run(**{PID_TAG: 1}))


def test_a_process_that_can_not_be_inspected_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> float:
        raise psutil.AccessDenied(os.getpid())

    monkeypatch.setattr(psutil.Process, "create_time", refuse)
    assert is_alive(run())


@pytest.mark.parametrize("number", [2**40, -1, "x"])
def test_a_run_that_is_not_ours_counts_as_alive(number: object) -> None:
    assert is_alive(run(**{PID_TAG: number}))


def test_a_run_on_another_machine_ended_when_it_is_silent() -> None:
    assert is_alive(run(**{HOST_TAG: "elsewhere"}))
    assert not is_alive(run(**{HOST_TAG: "elsewhere", HEARTBEAT_TAG: time.time() - SILENT_S - 1}))
