"""GO and NO-GO."""

from __future__ import annotations

import pytest

from mlff_exp.config.gate import Gate, Limit
from mlff_exp.results.gate import (
    BLEW_UP,
    MEASURED_NOTHING,
    NOT_RELAXED,
    UNBOUND,
    advice_for,
    format_limits,
    judge_gate,
)
from mlff_exp.results.metrics import METRICS
from mlff_exp.results.verdict import Fault, FaultKind
from mlff_exp.tasks.nve_files import verdict_lines

GATE = Gate("strict", {"drift": Limit(-0.01, 0.01), "bond": Limit(max=0.5), "ratio": Limit(min=3)})
GOOD = {"drift": -0.005, "bond": 0.1, "ratio": 4.0}


def test_go_when_everything_held() -> None:
    verdict = judge_gate(GOOD, GATE)
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
    verdict = judge_gate(GOOD | {metric: value}, GATE)
    assert verdict.decision == "NO-GO"
    assert len(verdict.reasons) == 1
    assert verdict.reasons[0].startswith(reason)
    assert [criterion.metric for criterion in verdict.criteria if not criterion.held] == [metric]


def test_what_was_not_measured_has_not_held() -> None:
    verdict = judge_gate({"drift": 0.0, "bond": 0.1}, GATE)
    assert verdict.decision == "NO-GO"
    assert verdict.reasons == ("ratio is not measured, allowed is ≥ 3",)

    assert verdict.criteria[2].held is None


def test_what_has_no_meaning_for_a_run_is_shown_and_not_judged() -> None:
    metrics = {"drift": 0.0, "bond": 0.1}
    verdict = judge_gate(metrics, GATE, inapplicable={"ratio": "fp16_autocast is too coarse"})
    assert (verdict.decision, verdict.reasons) == ("GO", ())
    assert (verdict.criteria[2].held, verdict.criteria[2].inapplicable) == (None, "fp16_autocast is too coarse")
    missed = judge_gate(metrics | {"bond": 0.6}, GATE, inapplicable={"ratio": "fp16_autocast is too coarse"})
    assert missed.decision == "NO-GO"
    assert MEASURED_NOTHING not in advice_for(missed, frames=True)
    (line,) = [line for line in verdict_lines(verdict) if line.startswith("ratio")]
    assert line.endswith("not judged: fp16_autocast is too coarse")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_was_not_measured(value: float) -> None:
    """Infinitely small would else hold whatever has only a largest value."""
    verdict = judge_gate(GOOD | {"bond": value}, GATE)
    assert verdict.decision == "NO-GO"
    assert verdict.reasons == ("bond is not measured, allowed is ≤ 0.5",)
    assert (verdict.criteria[1].value, verdict.criteria[1].held) == (None, None)


def test_advice_is_on_what_missed_and_names_no_frames_where_there_are_none() -> None:
    gate = Gate("strict", {"max_bond_change_ang": Limit(max=0.5), "energy_drift_percent": Limit(max=1)})
    broken = judge_gate({"max_bond_change_ang": 0.6, "energy_drift_percent": 0}, gate)
    assert advice_for(broken, frames=True) == [METRICS["max_bond_change_ang"].advice]
    nothing = judge_gate({"energy_drift_percent": 0}, gate)
    assert advice_for(nothing, frames=True) == [MEASURED_NOTHING]
    not_started = judge_gate({}, gate, [Fault(FaultKind.NOT_STARTED, "blew up while the start was prepared")])
    assert not any("frames" in text or "bond broke" in text for text in advice_for(not_started, frames=False))


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        (FaultKind.NOT_RELAXED, NOT_RELAXED),
        (FaultKind.UNBOUND, UNBOUND),
        (FaultKind.BLEW_UP, BLEW_UP),
        (FaultKind.UNKNOWN, BLEW_UP),
    ],
)
def test_advice_belongs_to_the_kind_of_a_fault_whatever_its_message(kind: FaultKind, advice: str) -> None:
    verdict = judge_gate({}, Gate("off", {}), [Fault(kind, "relaxed.xyz is the name of the system")])
    assert advice_for(verdict, frames=True) == [advice]


def test_an_explosion_is_no_go_whatever_the_gate() -> None:
    verdict = judge_gate({}, Gate("off", {}), [Fault(FaultKind.BLEW_UP, "replica 0 broke apart at step 7")])
    assert verdict.decision == "NO-GO"
    assert verdict.reasons == ("replica 0 broke apart at step 7",)


def test_intervals_in_words() -> None:
    assert [format_limits(*limits) for limits in ((None, None), (1, None), (None, 2), (1, 2))] == [
        "anything",
        "≥ 1",
        "≤ 2",
        "1 … 2",
    ]
