"""The registry of metrics, its page, and advice that it gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from mlff_exp.results.metrics import METRICS, SERIES, find_metric
from mlff_exp.results.metrics_page import metrics_page
from tests.helpers.here import CONF


def test_the_page_of_metrics_is_up_to_date() -> None:
    page = CONF.parent / "docs" / "metrics.md"
    assert page.read_text() == metrics_page(), "run: make docs"


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("latency_median_ms_ci_low", "latency_median_ms"),
        ("energy_drift_percent/benzene", "energy_drift_percent"),
        ("force_mae_mev_per_ang/element/C", "force_mae_mev_per_ang"),
        ("speedup_vs_fp32_ci_high", "speedup_vs_fp32"),
        ("speedup_vs_my_engine", "speedup_vs_<engine>"),
    ],
)
def test_a_name_in_a_result_leads_to_its_metric(name: str, metric: str) -> None:
    found = find_metric(name)
    assert found is not None
    assert found.name == metric


@pytest.mark.parametrize("name", ["", "latency", "speedup_vs_", "speedup_vs_a b", "latency_median_ms_ci"])
def test_a_name_of_no_metric_leads_to_none(name: str) -> None:
    assert find_metric(name) is None


def test_every_metric_has_a_meaning_and_columns_have_headings_of_their_own() -> None:
    assert all(metric.meaning and metric.better in ("lower", "higher", "zero", "") for metric in METRICS)
    headings = [metric.column for metric in METRICS if metric.column]
    assert len(set(headings)) == len(headings)
    assert not set(SERIES) & set(METRICS.names())


@pytest.mark.parametrize("path", sorted((CONF / "gate").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_criterion_of_a_gate_is_a_metric_with_advice(path: Path) -> None:
    gate = OmegaConf.load(path)
    assert isinstance(gate, DictConfig)
    for name in gate.get("criteria", {}):
        metric = find_metric(name)
        assert metric is not None, name
        assert metric.advice, name


def test_the_registry_imports_no_torch() -> None:
    code = "import sys; from mlff_exp.results import METRICS; list(METRICS); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
