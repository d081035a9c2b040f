"""A package that mlff_exp knows nothing of adds an engine, a model and a metric, which run from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from mlff_exp.models.graph import GraphModel
from mlff_exp.results.result import RunResult
from tests.helpers.here import run_here
from tests.helpers.labels import labelled_by
from tests.outside.package.outside_force_field.network import Pairs

PACKAGE = Path(__file__).resolve().parent / "package"
ROOT = PACKAGE.parent.parent.parent
MODEL = ("model=torch", "model.factory=outside_force_field.network:make", "trust=[outside_force_field]")


def said(directory: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), str(PACKAGE)])
    return subprocess.run(
        [sys.executable, "-m", "mlff_exp", *words],
        cwd=directory, env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True, text=True,
        encoding="utf-8", timeout=300,
    )  # fmt: skip


def test_a_sweep_over_a_model_and_an_engine_from_outside(tmp_path: Path, mlruns: Path) -> None:
    words = ("model=outside_pairs", "engine=eager,slow_eager", "system=water", "device=cpu", "hydra.sweep.dir=sweep")
    ended = said(tmp_path, "-m", *words, "task.min_calls=10", "task.min_time_s=0.05")
    assert ended.returncode == 0, ended.stderr
    eager, slow = (RunResult.load(tmp_path / "sweep" / number) for number in "01")
    assert eager.tags["checkpoint.sha256"] == slow.tags["checkpoint.sha256"]
    assert slow.tags["engine.ran"] == "slow_eager"
    assert slow.metrics["latency_median_ms"] >= 5
    for result in (eager, slow):
        assert 0 < result.metrics["force_relative_rmse_vs_fp64_percent"] < 1e-3
        per_atom = 1000 * result.metrics["latency_median_ms"] / 3
        assert result.metrics["outside_per_atom_us"] == pytest.approx(per_atom)
    report = (tmp_path / "sweep" / "report.html").read_text(encoding="utf-8")
    assert all(word in report for word in ("slow_eager", "outside_pairs", "per atom / µs"))
    client = mlflow.MlflowClient(f"sqlite:///{mlruns / 'mlflow.db'}")
    runs = [run for run in client.search_runs(["1"]) if "outside_per_atom_us" in run.data.metrics]
    assert {run.data.params["engine.name"] for run in runs} == {"eager", "slow_eager"}
    assert {run.data.params["model.name"] for run in runs} == {"outside_pairs"}


def test_help_and_the_shell_name_them(tmp_path: Path) -> None:
    helped = said(tmp_path, "--help").stdout
    assert all(word in helped for word in ("slow_eager", "outside_pairs", "torch"))
    line = "mlff_exp model=out"
    offered = said(tmp_path, "-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
    assert offered.stdout.split() == ["model=outside_pairs"], offered.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_factory_that_a_file_names_is_refused(tmp_path: Path) -> None:
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
    result = RunResult.load(tmp_path / "nve")
    assert result.verdict is not None
    assert "outside_force_field.network:make" in (tmp_path / "nve" / "validation_report.txt").read_text(
        encoding="utf-8"
    )


def test_a_model_from_outside_is_compared_with_labels(tmp_path: Path) -> None:
    labelled_by(GraphModel(Pairs(5.0, 8)).double(), ("H2O", "CH4", "C6H6")).save(tmp_path / "own.npz")
    model = ("model=torch", f"model.factory={Pairs.__module__}:make", "trust=[tests]")
    words = ("task=accuracy", *model, "engine=eager", "device=cpu", "batch_size=4", f"task.dataset={tmp_path}/own.npz")
    metrics = run_here(tmp_path / "run", *words).metrics
    assert 0 < metrics["force_rmse_vs_fp64_mev_per_ang"] < 0.01
    assert metrics["force_rmse_mev_per_ang"] < 0.5  # labels are kept to 1 meV/Å
    assert metrics["force_r2"] > 0.9999
    assert "force_mae_mev_per_ang/element/O" in metrics
