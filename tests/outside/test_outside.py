"""A package that mlff_exp knows nothing of adds an engine and a model; a sweep over both runs from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mlff_exp.results.result import RunResult

PACKAGE = Path(__file__).resolve().parent / "package"
ROOT = PACKAGE.parent.parent.parent
MODEL = ("model=torch", "model.factory=outside_force_field.network:make", "trust=[outside_force_field]")


def said(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), str(PACKAGE)])
    return subprocess.run(
        [sys.executable, "-m", "mlff_exp", *words],
        cwd=directory, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, encoding="utf-8",
        timeout=300,
    )  # fmt: skip


def test_a_sweep_over_an_engine_and_a_model_from_outside(tmp_path: Path) -> None:
    words = ("engine=eager,slow_eager", "system=water", "device=cpu", "tracking=offline", "hydra.sweep.dir=sweep")
    ended = said(tmp_path, "-m", *words, *MODEL, "task.min_calls=10", "task.min_time_s=0.05")
    assert ended.returncode == 0, ended.stderr
    eager, slow = (RunResult.load(tmp_path / "sweep" / number) for number in "01")
    assert eager.tags["checkpoint.sha256"] == slow.tags["checkpoint.sha256"]
    assert slow.tags["engine.ran"] == "slow_eager"
    assert slow.metrics["latency_median_ms"] >= 5
    assert slow.metrics["force_relative_rmse_vs_fp64_percent"] < 1e-3
    report = (tmp_path / "sweep" / "report.html").read_text(encoding="utf-8")
    assert "slow_eager" in report
    assert "outside_force_field.network:make" in report


def test_help_names_them_and_a_factory_that_a_file_names_is_refused(tmp_path: Path) -> None:
    helped = said(tmp_path, "--help")
    assert "slow_eager" in helped.stdout
    assert "torch" in helped.stdout
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "sent.yaml"
    factory = MODEL[1].partition("=")[2]
    file.write_text(f"# @package _global_\ndefaults:\n  - override /model: torch\nmodel:\n  factory: {factory}\n")
    refused = said(tmp_path, "-cd", ".", "experiment=sent", "device=cpu", "tracking=offline", "system=water")
    assert refused.returncode == 2
    assert "trust=[outside_force_field]" in refused.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "experiment"]


def test_a_model_from_outside_moves(tmp_path: Path) -> None:
    words = ("task=nve", "task.duration_ps=0.05", "task.settle_ps=0.01", "task.probe_ps=0.01", "hydra.run.dir=nve")
    ended = said(tmp_path, *words, *MODEL, "engine=slow_eager", "engine.delay_ms=0", "system=water", "device=cpu",
                 "tracking=offline")  # fmt: skip
    assert ended.returncode in (0, 3), ended.stderr
    assert RunResult.load(tmp_path / "nve").verdict is not None
