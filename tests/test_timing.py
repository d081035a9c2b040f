"""Does the stop-watch tell the truth?"""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlff_exp.result import Timing
from mlff_exp.timing import (
    LEAD_IN_CALLS,
    PLANTED,
    Candidate,
    Controls,
    Ratio,
    controls,
    judge_controls,
    mad_ms,
    measure,
    median_interval_ms,
    median_ms,
    p95_ms,
    ratio,
    wall_median_ms,
)

CPU = torch.device("cpu")


def sleeper(ms: float) -> Candidate:
    def spin(_: int) -> None:
        # Busy, because a sleeping thread wakes up late.
        end = time.perf_counter_ns() + ms * 1e6
        while time.perf_counter_ns() < end:
            pass

    return Candidate(spin, min_calls=60, min_time_s=0.0)


def timing(values: list[float], blocks: int = 10) -> Timing:
    return Timing(tuple(values), (), 0.0, (len(values) // blocks,) * blocks)


def test_a_known_duration_is_measured() -> None:
    measured = measure({"spin": sleeper(2.0)}, CPU)["spin"]
    assert len(measured.values_ms) >= 60
    assert min(measured.values_ms) >= 2.0
    assert median_ms(measured) == pytest.approx(2.0, rel=0.1)
    assert measured.first_call_s >= 0.002
    assert measured.wall_ms == measured.values_ms


def test_a_slower_one_is_told_apart_and_an_equal_one_is_not() -> None:
    measured = measure({"a": sleeper(1.0), "b": sleeper(1.0), "slow": sleeper(1.3)}, CPU)
    slower = ratio(measured["slow"], measured["a"])
    assert slower.ci_low > 1.1
    assert slower.value == pytest.approx(1.3, rel=0.1)
    equal = ratio(measured["b"], measured["a"])
    assert equal.value == pytest.approx(1.0, rel=0.05)


def test_controls_are_judged_rightly_on_a_quiet_machine() -> None:
    spin = sleeper(1.0)
    measured = measure({"engine": spin, **controls(spin)}, CPU)
    found = judge_controls(measured, "engine")
    assert found.slower.value == pytest.approx(1 + PLANTED, abs=0.02)
    assert found.same.ci_low <= found.same.value <= found.same.ci_high


@pytest.mark.parametrize(
    ("same", "slower", "faults"),
    [
        (Ratio(1.0, 0.99, 1.01), Ratio(1.05, 1.04, 1.06), []),
        (Ratio(1.005, 1.004, 1.006), Ratio(1.05, 1.04, 1.06), []),
        (
            Ratio(1.1, 1.05, 1.2),
            Ratio(1.05, 1.04, 1.06),
            ["the same engine timed twice differs by +10.0% [+5.0, +20.0]"],
        ),
        (Ratio(1.0, 0.9, 1.1), Ratio(1.05, 0.95, 1.2), ["an engine 5% slower was measured as +5.0% [-5.0, +20.0]"]),
        (Ratio(1.0, 0.9, 1.1), Ratio(1.2, 1.1, 1.3), ["an engine 5% slower was measured as +20.0% [+10.0, +30.0]"]),
    ],
)
def test_a_stop_watch_that_misjudges_says_so(same: Ratio, slower: Ratio, faults: list[str]) -> None:
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
    spin = Candidate(lambda _: torch.cuda._sleep(cycles), min_calls=100, min_time_s=0.0)
    slower = Candidate(lambda _: torch.cuda._sleep(round(1.1 * cycles)), min_calls=100, min_time_s=0.0)
    measured = measure({"engine": spin, "slower": slower, **controls(spin)}, device)
    # From an idle device, whose wait for the launch is a part of every call.
    assert 0.97 * true_ms <= median_ms(measured["engine"]) <= 1.03 * true_ms + 0.01
    assert wall_median_ms(measured["engine"]) >= median_ms(measured["engine"])
    tenth = ratio(measured["slower"], measured["engine"])
    assert 1.05 < tenth.ci_low <= tenth.ci_high < 1.15
    assert judge_controls(measured, "engine").faults == []


def test_every_call_gets_its_own_number() -> None:
    numbers: list[int] = []
    measured = measure({"x": Candidate(numbers.append, min_calls=100, min_time_s=0.0)}, CPU)["x"]
    assert set(range(100)) <= set(numbers)
    assert len(numbers) >= len(measured.values_ms) + len(measured.warmup_ms)


@given(values=st.lists(st.floats(0.1, 100), min_size=20, max_size=200), factor=st.floats(0.5, 50))
def test_statistics_scale_and_ratios_of_scaled_samples_are_exact(values: list[float], factor: float) -> None:
    values = values[: len(values) // 10 * 10]
    base, scaled = timing(values), timing([factor * value for value in values])
    for statistic in (median_ms, p95_ms, mad_ms):
        assert statistic(scaled) == pytest.approx(factor * statistic(base))
    result = ratio(scaled, base)
    assert result.ci_low <= result.value * (1 + 1e-9)
    low, high = median_interval_ms(base)
    assert min(values) <= low <= high <= max(values)


def test_each_block_has_one_of_the_first_candidate_on_either_side() -> None:
    seen: list[str] = []
    candidates = {name: Candidate(lambda _, name=name: seen.append(name), 60, 0.0) for name in "abc"}
    measured = measure(candidates, CPU)
    assert measured["a"].turns[:4] == (0, 2, 4, 6)
    assert [measured[name].turns[:2] for name in "bc"] == [(1, 5), (3, 7)]
    for name, per_block in (("a", 1), ("b", 2), ("c", 2)):
        assert set(measured[name].blocks) == {per_block}
        assert len(measured[name].values_ms) == per_block * len(measured[name].turns) >= 60
    # After the warm-ups, and with the untimed calls that lead in each block.
    a, b, c = (LEAD_IN_CALLS * name + name * measured[name].blocks[0] for name in "abc")
    assert "".join(seen).endswith((a + b + a + c) * 3)


def test_what_a_machine_does_to_neighbours_leaves_their_ratio() -> None:
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
    found = ratio(b, a)
    assert 1.03 < found.ci_low <= 1.05 <= found.ci_high < 1.07
    assert ratio(a, b).value == pytest.approx(1 / 1.05, abs=0.02)
    # Of every second block: the neighbours are found by their turns.
    half = Timing(b.values_ms[::2], (), 0.0, (2,) * 50, turns=b.turns)
    sparse = Timing(half.values_ms[:50], (), 0.0, (2,) * 25, turns=half.turns[:25])
    assert ratio(sparse, a).value == pytest.approx(1.05, abs=0.02)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        slow, fast = (timing(list(mean * rng.lognormal(sigma=0.1, size=200)), 20) for mean in (1.5, 1.0))
        result = ratio(slow, fast)
        covered += result.ci_low <= 1.5 <= result.ci_high
    assert covered >= 51
