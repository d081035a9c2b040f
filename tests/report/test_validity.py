"""The effect of a verdict on the validity of speedups in the same report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlff_exp.report.content import table_row
from mlff_exp.report.decision import decide
from mlff_exp.report.validity import _decision, validity
from mlff_exp.results.result import USUAL_TEMPERATURE, USUAL_TIMESTEP
from mlff_exp.results.verdict import Criterion, Verdict
from tests.helpers.results import CONFIG, full_result
from tests.helpers.sweeps import changed, moved, timed


def test_a_verdict_on_what_was_no_trajectory_lets_nothing_through() -> None:
    """A result from elsewhere may have no duration."""
    go = Verdict("GO", "strict", (Criterion("drift", None, None, 1.0, True),), ())
    assert "duration_ps" not in full_result().config["task"]
    assert _decision(replace(full_result(), verdict=go), CONFIG["system"]) is None  # type: ignore[arg-type]
    assert _decision(full_result(), CONFIG["system"]) == "NO-GO"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ran_fs", "usual", "expected"),
    [
        (0.5, {USUAL_TIMESTEP: "0.5"}, "yes"),
        (1.0, {USUAL_TIMESTEP: "0.5"}, "yes"),
        (0.25, {USUAL_TIMESTEP: "0.5"}, "stability not known"),
        (0.5, {USUAL_TIMESTEP: "2"}, "stability not known"),
        (2.0, {USUAL_TIMESTEP: "2"}, "yes"),
        (0.5, {}, "yes"),  # an earlier version, where 0.5 fs was usual for all systems
        (0.25, {}, "stability not known"),
        (0.5, {USUAL_TIMESTEP: "short"}, "stability not known"),
    ],
)
def test_a_go_in_shorter_steps_than_usual_says_nothing_of_stability(
    ran_fs: float, usual: dict[str, str], expected: str
) -> None:
    fast, run = timed("cuda_graph", "fp32", 1, 40.0), moved("cuda_graph", "fp32", "GO")
    ran = replace(changed(run, task={**run.config["task"], "timestep_fs": ran_fs}), tags=usual)
    assert validity(fast, [fast, ran]) == expected
    told = "than usual" in " ".join(table_row(ran).cells)
    helps = "the usual task.timestep_fs and task.temperature_k" in " ".join(decide([fast, ran]).values())
    assert told == helps == (expected != "yes")
    no_go = replace(moved("cuda_graph", "fp32", "NO-GO"), config=ran.config, tags=usual)
    assert validity(fast, [fast, no_go]) == "no: unstable"


@pytest.mark.parametrize(
    ("ran_k", "usual", "expected"),
    [
        (300.0, {}, "yes"),
        (299.0, {}, "stability not known"),
        (400.0, {}, "yes"),
        (200.0, {USUAL_TEMPERATURE: "200"}, "yes"),
        (150.0, {USUAL_TEMPERATURE: "200"}, "stability not known"),
        (300.0, {USUAL_TEMPERATURE: "cold"}, "stability not known"),
    ],
)
def test_a_go_at_a_lower_temperature_says_nothing_of_stability(
    ran_k: float, usual: dict[str, str], expected: str
) -> None:
    fast, run = timed("cuda_graph", "fp32", 1, 40.0), moved("cuda_graph", "fp32", "GO")
    task = {**run.config["task"], "timestep_fs": 0.5, "temperature_k": ran_k}
    ran = replace(changed(run, task=task), tags=usual)
    assert validity(fast, [fast, ran]) == expected
    assert ("than usual" in " ".join(table_row(ran).cells)) == (expected != "yes")
