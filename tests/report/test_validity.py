"""The effect of a verdict on the validity of speedups in the same report."""

from __future__ import annotations

from dataclasses import replace

from mlff_exp.report.validity import _decision
from mlff_exp.results.verdict import Criterion, Verdict
from tests.helpers.results import CONFIG, full_result


def test_a_verdict_on_what_was_no_trajectory_lets_nothing_through() -> None:
    """A result from elsewhere may have no duration."""
    go = Verdict("GO", "strict", (Criterion("drift", None, None, 1.0, True),), ())
    assert "duration_ps" not in full_result().config["task"]
    assert _decision(replace(full_result(), verdict=go), CONFIG["system"]) is None  # type: ignore[arg-type]
    assert _decision(full_result(), CONFIG["system"]) == "NO-GO"  # type: ignore[arg-type]
