"""Timing finds known ratios, and its intervals have the right size."""

from __future__ import annotations

import os
import time
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from mlff_exp.measure.timing import (
    LEAD_IN_CALLS,
    RESAMPLES,
    Candidate,
    Controls,
    judge_controls,
    mad_ms,
    make_controls,
    measure_side_by_side,
    median_interval_ms,
    median_ms,
    p95_ms,
    time_ratio,
    wall_median_ms,
)
from mlff_exp.results.estimate import Estimate
from mlff_exp.results.metrics import PLANTED
from mlff_exp.results.result import Timing

CPU = torch.device("cpu")


def sleeper(ms: float) -> Candidate:
    def spin() -> None:
        # Busy, because a sleeping thread wakes up late.
        end = time.perf_counter_ns() + ms * 1e6
        while time.perf_counter_ns() < end:
            pass

    return Candidate(spin, min_calls=60, min_time_s=0.0)


def timing(values: list[float], blocks: int = 10) -> Timing:
    return Timing(tuple(values), (), 0.0, (len(values) // blocks,) * blocks)


def test_a_known_duration_is_measured() -> None:
    measured = measure_side_by_side({"spin": sleeper(2.0)}, CPU)["spin"]
    assert len(measured.values_ms) >= 60
    assert min(measured.values_ms) >= 2.0
    assert median_ms(measured) == pytest.approx(2.0, rel=0.1)
    assert measured.first_call_s >= 0.002
    assert measured.wall_ms == measured.values_ms


def test_a_slower_candidate_is_detected_and_an_equal_one_is_not() -> None:
    measured = measure_side_by_side({"a": sleeper(1.0), "b": sleeper(1.0), "slow": sleeper(1.3)}, CPU)
    slower = time_ratio(measured["slow"], measured["a"])
    assert slower.low > 1.1
    assert slower.value == pytest.approx(1.3, rel=0.1)
    equal = time_ratio(measured["b"], measured["a"])
    assert equal.value == pytest.approx(1.0, rel=0.05)


def test_controls_are_judged_rightly_on_a_quiet_machine() -> None:
    spin = sleeper(1.0)
    measured = measure_side_by_side({"engine": spin, **make_controls(spin)}, CPU)
    found = judge_controls(measured, "engine")
    assert found.slower.value == pytest.approx(1 + PLANTED, abs=0.02)
    assert found.same.low <= found.same.value <= found.same.high


@pytest.mark.parametrize(
    ("same", "slower", "faults"),
    [
        (Estimate(1.0, 0.99, 1.01), Estimate(1.05, 1.04, 1.06), []),
        (Estimate(1.005, 1.004, 1.006), Estimate(1.05, 1.04, 1.06), []),
        (
            Estimate(1.1, 1.05, 1.2),
            Estimate(1.05, 1.04, 1.06),
            ["the same engine timed twice differs by +10.0% [+5.0, +20.0]"],
        ),
        (
            Estimate(1.0, 0.9, 1.1),
            Estimate(1.05, 0.95, 1.2),
            ["an engine 5% slower was measured as +5.0% [-5.0, +20.0]"],
        ),
        (
            Estimate(1.0, 0.9, 1.1),
            Estimate(1.2, 1.1, 1.3),
            ["an engine 5% slower was measured as +20.0% [+10.0, +30.0]"],
        ),
    ],
)
def test_misjudged_controls_are_reported(same: Estimate, slower: Estimate, faults: list[str]) -> None:
    assert Controls(same, slower).faults == faults


@pytest.mark.gpu
@pytest.mark.parametrize("cycles", [300_000, 2_000_000])  # 0.2 and 1 ms
def test_a_known_kernel_is_measured_on_the_gpu(cycles: int) -> None:
    """A kernel that spins for a number of cycles, against the clock of the device and that of the host."""
    if os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") != "1":
        pytest.skip("needs the GPU for itself: run this one without -n")
    device = torch.device("cuda")
    torch.cuda._sleep(cycles)
    torch.cuda.synchronize()
    started = time.perf_counter()
    torch.cuda._sleep(100 * cycles)
    torch.cuda.synchronize()
    true_ms = (time.perf_counter() - started) * 10
    spin = Candidate(lambda: torch.cuda._sleep(cycles), min_calls=100, min_time_s=0.0)
    slower = Candidate(lambda: torch.cuda._sleep(round(1.1 * cycles)), min_calls=100, min_time_s=0.0)
    measured = measure_side_by_side({"engine": spin, "slower": slower, **make_controls(spin)}, device)
    # From an idle device, whose wait for the launch is a part of every call.
    assert 0.97 * true_ms <= median_ms(measured["engine"]) <= 1.03 * true_ms + 0.01
    assert wall_median_ms(measured["engine"]) >= median_ms(measured["engine"])
    tenth = time_ratio(measured["slower"], measured["engine"])
    assert 1.05 < tenth.low <= tenth.high < 1.15
    assert judge_controls(measured, "engine").faults == []


@given(values=st.lists(st.floats(0.1, 100), min_size=20, max_size=200), factor=st.floats(0.5, 50))
def test_statistics_scale_and_ratios_of_scaled_samples_are_exact(values: list[float], factor: float) -> None:
    values = values[: len(values) // 10 * 10]
    base, scaled = timing(values), timing([factor * value for value in values])
    for statistic in (median_ms, p95_ms, mad_ms):
        assert statistic(scaled) == pytest.approx(factor * statistic(base))
    result = time_ratio(scaled, base)
    assert result.low <= result.value * (1 + 1e-9)
    low, high = median_interval_ms(base)
    assert min(values) <= low <= median_ms(base) <= high <= max(values)


@given(ratios=st.lists(st.floats(0.1, 100), min_size=2, max_size=60), confidence=st.floats(0.5, 0.999))
@settings(max_examples=20, deadline=None)
def test_the_interval_is_that_of_scipy(ratios: list[float], confidence: float) -> None:
    numerator, denominator = (timing(values, len(ratios)) for values in (ratios, [1.0] * len(ratios)))
    found = time_ratio(numerator, denominator, confidence)
    expected = bootstrap(
        (ratios,), np.median, n_resamples=RESAMPLES, confidence_level=confidence, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_each_block_has_one_of_the_first_candidate_on_either_side() -> None:
    seen: list[str] = []
    candidates = {name: Candidate(partial(seen.append, name), 60, 0.0) for name in "abc"}
    measured = measure_side_by_side(candidates, CPU)
    assert measured["a"].turns[:4] == (0, 2, 4, 6)
    assert [measured[name].turns[:2] for name in "bc"] == [(1, 5), (3, 7)]
    for name, per_block in (("a", 1), ("b", 2), ("c", 2)):
        assert set(measured[name].blocks) == {per_block}
        assert len(measured[name].values_ms) == per_block * len(measured[name].turns) >= 60
    # After the warm-ups, and with the untimed calls that lead in each block.
    a, b, c = (LEAD_IN_CALLS * name + name * measured[name].blocks[0] for name in "abc")
    assert "".join(seen).endswith((a + b + a + c) * 3)


def test_a_drift_of_the_machine_does_not_change_ratios() -> None:
    """Its speed wanders by a quarter over seconds; the second takes 5% longer."""
    rng = np.random.default_rng(0)
    speed = np.exp(0.25 * np.sin(np.arange(100) / 7))
    a, b = (
        Timing(
            tuple(truth * np.repeat(speed[turns], 4) * rng.lognormal(sigma=0.01, size=4 * len(turns))),
            (),
            0.0,
            (4,) * len(turns),
            turns=tuple(turns.tolist()),
        )
        for truth, turns in ((1.0, np.arange(0, 100, 2)), (1.05, np.arange(1, 100, 2)))
    )
    found = time_ratio(b, a)
    assert 1.03 < found.low <= 1.05 <= found.high < 1.07
    assert time_ratio(a, b).value == pytest.approx(1 / 1.05, abs=0.02)
    # One timing has every second block only: neighbours are found by their turns.
    half = Timing(b.values_ms[::2], (), 0.0, (2,) * 50, turns=b.turns)
    sparse = Timing(half.values_ms[:50], (), 0.0, (2,) * 25, turns=half.turns[:25])
    assert time_ratio(sparse, a).value == pytest.approx(1.05, abs=0.02)


class Machine:
    """A simulated one in place of the module ``time``: its speed wanders, and calls take the time they are told to."""

    def __init__(self, seed: int) -> None:
        self.rng, self.now_ns = np.random.default_rng(seed), 0.0

    def perf_counter_ns(self) -> int:
        self.now_ns += 50
        return int(self.now_ns)

    def perf_counter(self) -> float:
        return self.perf_counter_ns() / 1e9

    def call(self, ms: float) -> None:
        slowness = 1 + 0.1 * np.sin(self.now_ns / 3e8)
        self.now_ns += 1e6 * ms * slowness * self.rng.lognormal(sigma=0.03)

    def candidate(self, ms: float, min_calls: int) -> Candidate:
        return Candidate(partial(self.call, ms), min_calls, 0.0)


def test_intervals_contain_the_truth_as_often_as_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timing of 1 ms for a second, with two controls: itself, and itself slowed by a tenth."""
    held = {"known": 0, "same": 0, "slower": 0}
    for seed in range(40):
        machine = Machine(seed)
        monkeypatch.setattr("mlff_exp.measure.timing.time", machine)
        times = {"engine": (1.0, 1000), "same": (1.0, 100), "slower": (1.1, 100)}
        measured = measure_side_by_side({name: machine.candidate(*values) for name, values in times.items()}, CPU)
        low, high = median_interval_ms(measured["engine"])
        held["known"] += low <= 1.0 <= high
        same, slower = (time_ratio(measured[name], measured["engine"]) for name in ("same", "slower"))
        held["same"] += same.low <= 1 <= same.high
        held["slower"] += slower.low <= 1.1 <= slower.high
        assert slower.low > 1.05, "a tenth is told apart every time"
    assert min(held.values()) >= 34, held


def test_a_candidate_faster_than_its_warm_up_is_measured_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(0)
    monkeypatch.setattr("mlff_exp.measure.timing.time", machine)
    durations = iter([3.0] * 11)
    candidate = Candidate(lambda: machine.call(next(durations, 2.0)), 10, 1.0)
    (measured,) = measure_side_by_side({"warm": candidate}, CPU).values()
    assert sum(measured.values_ms) >= 1000
    assert len(measured.blocks) > 50


def test_a_slow_candidate_is_called_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 calls of 100 ms were asked for, in five seconds at most."""
    machine = Machine(0)
    monkeypatch.setattr("mlff_exp.measure.timing.time", machine)
    candidate = Candidate(partial(machine.call, 100.0), 1000, 2.0, 5.0)
    (measured,) = measure_side_by_side({"slow": candidate}, CPU).values()
    assert 4 < sum(measured.values_ms) / 1000 < 8
    assert len(measured.blocks) >= 20
