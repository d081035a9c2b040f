"""The command in a process of its own, and what it left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from mlff_exp.results.result import RunResult

ROOT = Path(__file__).resolve().parent.parent.parent
INFERENCE = [
    "task=inference",
    "engine=eager",
    "system=water",
    "device=cpu",
    "task.min_calls=10",
    "task.min_time_s=0.01",
]
SMALL = "model.checkpoint=student_small"  # where the weights do not matter, because it is faster
NVE = [
    "task=nve",
    "engine=eager",
    "device=cpu",
    SMALL,
    "task.duration_ps=0.1",
    "task.settle_ps=0.05",
    "task.probe_ps=0.1",
    "gate=plan",
]


def mlff_exp(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlff_exp", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300)


def results(directory: Path) -> list[RunResult]:
    return [RunResult.load(path.parent) for path in sorted(directory.glob("outputs/**/result.json"))]


def assert_worker_ends_with(process: subprocess.Popen[bytes]) -> None:
    worker = _wait_for_worker(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 2
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(worker)


def _runs(process: int) -> bool:
    """Whether it has not ended; one that nobody has waited for is a zombie."""
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def _wait_for_worker(parent: int) -> int:
    """The worker is the descendant in a session of its own."""
    for _ in range(1200):
        for descendant in _descendants(parent):
            if os.getsid(descendant) == descendant:
                return descendant
        time.sleep(0.05)
    raise AssertionError("no worker appeared")


def _descendants(process: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return children + [below for child in children for below in _descendants(child)]
