"""A metric of another package: it is computed once, recorded, shown, and costs no result if it fails."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from mlff_exp.common import registry
from mlff_exp.report.content import report_content
from mlff_exp.report.terminal import describe_result
from mlff_exp.results.metrics import METRICS, Metric
from mlff_exp.results.result import NOT_COMPUTED, RunResult
from mlff_exp.runs.outside_metrics import add_outside_metrics, copy_outside_metrics
from tests.helpers.sweeps import timed

CALLS: list[RunResult] = []
RETURNED: list[Any] = [0.5]
PLANTED = Metric("planted_ms", "ms", "lower", "a number", column="planted / ms", compute=f"{__name__}:planted")
RUN = timed("eager", "fp32", 1, 1.0)


def planted(result: RunResult) -> Any:
    CALLS.append(result)
    if isinstance(RETURNED[0], Exception):
        raise RETURNED[0]
    return RETURNED[0]


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package with an entry point."""
    point = EntryPoint("planted_ms", f"{__name__}:PLANTED", METRICS.group)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] * (group == METRICS.group))
    monkeypatch.setattr(METRICS, "_specs", dict(METRICS._specs))
    monkeypatch.setattr(METRICS, "_looked_outside", False)
    CALLS.clear()
    yield
    RETURNED[0] = 0.5


def test_it_is_recorded_and_has_a_column(tmp_path: Path) -> None:
    found = add_outside_metrics(RUN)
    assert found.metrics == {**RUN.metrics, "planted_ms": 0.5}
    assert [result.config for result in CALLS] == [RUN.config]
    content = report_content([found])
    assert "planted / ms" in content.columns
    assert content.rows[0].cells[content.columns.index("planted / ms")] == "0.5"
    assert "planted / ms 0.5" in describe_result(found)
    found.save(tmp_path)
    assert RunResult.load(tmp_path).metrics["planted_ms"] == 0.5


def test_it_is_computed_once_for_a_run_that_is_kept_twice() -> None:
    first = add_outside_metrics(RUN)
    later = copy_outside_metrics(first, RUN)
    assert later.metrics == first.metrics
    assert len(CALLS) == 1


def test_one_that_does_not_apply_is_absent() -> None:
    RETURNED[0] = None
    assert add_outside_metrics(RUN) == RUN


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (RuntimeError("no such sensor"), "planted_ms: RuntimeError: no such sensor"),
        (float("nan"), "planted_ms: ValueError: "),
        (float("inf"), "planted_ms: ValueError: "),
        (True, "planted_ms: TypeError: "),
        ("0.5", "planted_ms: TypeError: "),
        ([1.0], "planted_ms: TypeError: "),
    ],
)
def test_one_that_fails_costs_itself_and_a_warning(
    returned: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    RETURNED[0] = returned
    found = add_outside_metrics(RUN)
    assert found.metrics == RUN.metrics
    assert found.tags[NOT_COMPUTED].startswith(message)
    assert copy_outside_metrics(found, RUN).tags == found.tags
    said = capsys.readouterr()
    assert "mlff-exp: warning: the result is safe, but a metric was not computed: planted_ms" in said.out + said.err
    assert "not computed: planted_ms" in describe_result(found)
    assert any("metrics of other packages" in warning.summary for warning in report_content([found]).warnings)


def test_a_name_that_the_task_measured_is_not_overwritten() -> None:
    measured = add_outside_metrics(timed("eager", "fp32", 1, 1.0, planted_ms=7.0))
    assert measured.metrics["planted_ms"] == 7.0
    assert "measured a metric of this name" in measured.tags[NOT_COMPUTED]
