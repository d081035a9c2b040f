"""The first lines of a report: the decision in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlff_exp.report.content import report_content
from mlff_exp.report.decision import ASKED, HELP, SAFE, SURE, decide
from mlff_exp.report.html import html_page
from mlff_exp.report.markdown import markdown
from mlff_exp.report.validity import LARGEST_ERRORS, validity
from mlff_exp.results.verdict import Criterion, Verdict
from tests.helpers.sweeps import CRITERIA, SWEEP, changed, moved, timed


def test_a_report_begins_with_what_was_asked_what_is_safe_and_how_sure_it_is() -> None:
    said = decide(SWEEP)
    assert said[ASKED] == (
        "student on benzene with cuda_graph, eager in fp32, fp16_autocast (2 of nve, 6 of inference)"
    )
    assert said[SAFE] == (
        "inference · benzene · cuda_graph · fp32 · B16: 40.0× [38.0, 42.0] as fast as eager FP32, "
        "force error 0.0001%, stable"
    )
    assert said[SURE] == (
        "6 of 6 timings can be trusted; NVE: GO of cuda_graph fp32 by 1 start over 100 ps; "
        "NO-GO of cuda_graph fp16_autocast by 1 start over 100 ps"
    )
    assert HELP not in said
    content = report_content(SWEEP)
    page, text = html_page("a sweep", content, SWEEP), markdown("a sweep", content)
    for written in (page, text):
        assert written.index("Safe to use") < written.index("inference · benzene")
        assert written.index("Safe to use") < written.index("Runs")


def test_what_would_make_it_surer_is_said() -> None:
    walk = Criterion("energy_walk_percent_of_thermal", 0.7, None, 1.0, None, 0.5, 1.4, True, 44)
    undecided = replace(
        moved("fused", "fp16_autocast", "UNDECIDED"), verdict=Verdict("UNDECIDED", "strict", (walk,), ())
    )
    shaken = replace(timed("fused", "fp16_autocast", 1, 90.0), tags={"timing.trust": "throttled"})
    said = decide([undecided, timed("fused", "fp16_autocast", 16, 90.0), timed("compile", "fp32", 1, 40.0), shaken])
    assert (
        said[SAFE]
        == "no optimisation is known to be safe (1 × stability not decided, 1 × stability not known, 1 × not trusted)"
    )
    assert said[HELP] == (
        "task.replicas=44 for nve · benzene · fused · fp16_autocast · ×3; task=nve with compile fp32; "
        "more calls for timings marked (?)"
    )


def test_a_short_trajectory_asks_for_a_longer_one() -> None:
    go = moved("fused", "fp32", "GO")
    said = decide([changed(go, task={**go.config["task"], "duration_ps": 2.0})])
    assert said[SAFE].endswith("is GO; nothing was timed")
    assert said[HELP] == "task.duration_ps=100"


def test_a_run_of_more_starts_decides_what_few_starts_left_open() -> None:
    walk = Criterion("energy_walk_percent_of_thermal", 0.7, None, 1.0, None, 0.5, 1.4, True, 44)
    few = replace(moved("fused", "fp32", "UNDECIDED"), verdict=Verdict("UNDECIDED", "strict", (walk,), (), n_starts=3))
    many = changed(moved("fused", "fp32", "GO"), task={**few.config["task"], "replicas": 44})
    fast = timed("fused", "fp32", 1, 40.0)
    for order in ([few, many], [many, few]):
        assert validity(fast, [fast, *order]) == "yes"
        said = decide(order)
        assert said[SAFE] == "nve · benzene · fused · fp32 · ×44 is GO; nothing was timed"
        assert HELP not in said
    broken = moved("fused", "fp32", "NO-GO")
    assert validity(fast, [fast, few, many, broken]) == "no: unstable", "a NO-GO counts most"
    assert decide([few])[HELP] == "task.replicas=44 for nve · benzene · fused · fp32 · ×3"


def test_nothing_is_decided_where_nothing_was_measured() -> None:
    assert decide([]) == {}
    assert "Safe to use" not in markdown("a sweep", report_content([]))


@pytest.mark.parametrize("metric", LARGEST_ERRORS)
def test_an_error_beyond_its_limit_makes_a_speedup_invalid(metric: str) -> None:
    stable = replace(moved("fused", "fp32", "GO"), verdict=Verdict("GO", "strict", CRITERIA, ()))
    for factor, expected in ((0.99, "yes"), (1.01, "no: inaccurate")):
        result = timed("fused", "fp32", 1, 40.0, **{metric: factor * LARGEST_ERRORS[metric]})
        assert validity(result, [result, stable]) == expected


@pytest.mark.parametrize(
    ("gpa", "percent", "expected"),
    [
        (0.011, 1.1, "no: inaccurate stress"),
        (0.009, 50.0, "yes"),  # a cell at rest has hardly any stress to be relative to
        (0.05, 0.9, "yes"),
        (0.011, None, "no: inaccurate stress"),  # a stress of zero has no relative error
        (0.009, None, "yes"),
    ],
)
def test_the_stress_has_to_hold_one_of_two_limits(gpa: float, percent: float | None, expected: str) -> None:
    stable = replace(moved("fused", "fp32", "GO"), verdict=Verdict("GO", "strict", CRITERIA, ()))
    relative = {} if percent is None else {"stress_relative_rmse_vs_fp64_percent": percent}
    result = timed("fused", "fp32", 1, 40.0, stress_rmse_vs_fp64_gpa=gpa, **relative)
    assert validity(result, [result, stable]) == expected
    if percent is not None and expected == "yes":
        assert f"stress error {percent:g}%, stable" in decide([result, stable])[SAFE]


def test_percent_of_the_total_energy_counts_for_nothing() -> None:
    stable = moved("fused", "fp32", "GO")
    result = timed("fused", "fp32", 1, 40.0, energy_relative_mae_vs_fp64_percent=50.0)
    assert validity(result, [result, stable]) == "yes"
