"""GO and NO-GO."""

from __future__ import annotations

import pytest

from mlff_exp.config import Gate, Limit
from mlff_exp.gate import interval, judge

GATE = Gate("strict", {"drift": Limit(-0.01, 0.01), "bond": Limit(max=0.5), "ratio": Limit(min=3)})
GOOD = {"drift": -0.005, "bond": 0.1, "ratio": 4.0}


def test_go_when_everything_held() -> None:
    verdict = judge(GOOD, GATE)
    assert verdict.decision == "GO"
    assert verdict.reasons == ()
    assert [criterion.held for criterion in verdict.criteria] == [True] * 3


@pytest.mark.parametrize(
    ("metric", "value", "reason"),
    [
        ("drift", 0.011, "drift is 0.011, allowed is -0.01 … 0.01"),
        ("drift", -0.011, "drift is -0.011"),
        ("bond", 0.6, "bond is 0.6, allowed is ≤ 0.5"),
        ("ratio", 2.9, "ratio is 2.9, allowed is ≥ 3"),
    ],
)
def test_no_go_names_the_criterion_its_value_and_its_limit(metric: str, value: float, reason: str) -> None:
    verdict = judge(GOOD | {metric: value}, GATE)
    assert verdict.decision == "NO-GO"
    assert len(verdict.reasons) == 1
    assert verdict.reasons[0].startswith(reason)
    assert [criterion.metric for criterion in verdict.criteria if not criterion.held] == [metric]


def test_what_was_not_measured_has_not_held() -> None:
    verdict = judge({"drift": 0.0, "bond": 0.1}, GATE)
    assert verdict.decision == "NO-GO"
    assert verdict.reasons == ("ratio is not measured, allowed is ≥ 3",)


def test_an_explosion_is_no_go_whatever_the_gate() -> None:
    verdict = judge({}, Gate("off", {}), ["replica 0 broke apart at step 7"])
    assert verdict.decision == "NO-GO"
    assert verdict.reasons == ("replica 0 broke apart at step 7",)


def test_intervals_in_words() -> None:
    assert [interval(*limits) for limits in ((None, None), (1, None), (None, 2), (1, 2))] == [
        "anything",
        "≥ 1",
        "≤ 2",
        "1 … 2",
    ]
