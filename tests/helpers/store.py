"""Stores and runs that several tests use."""

from __future__ import annotations

import multiprocessing
import subprocess
from pathlib import Path
from typing import Any

from mlff_exp.results.result import RunResult
from tests.helpers.results import full_result


def processes() -> Any:
    """Processes forked from one that has imported MLflow, because each import takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.store"])
    return context


def finished(directory: Path, result: RunResult | None = None) -> Path:
    directory.mkdir(parents=True)
    (directory / "latency.png").write_bytes(b"png")
    (directory / "config.yaml").write_text("task: inference\n")
    (full_result() if result is None else result).save(directory)
    return directory


def dead_pid() -> str:
    process = subprocess.Popen(["true"])
    process.wait()
    return str(process.pid)
