"""Does the stop-watch tell the truth?"""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlff_exp.result import Timing
from mlff_exp.timing import Candidate, mad_ms, measure, median_interval_ms, median_ms, p95_ms, ratio

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


def test_a_slower_one_is_told_apart_and_an_equal_one_is_not() -> None:
    measured = measure({"a": sleeper(1.0), "b": sleeper(1.0), "slow": sleeper(1.3)}, CPU)
    slower = ratio(measured["slow"], measured["a"])
    assert slower.ci_low > 1.1
    assert slower.value == pytest.approx(1.3, rel=0.1)
    equal = ratio(measured["b"], measured["a"])
    assert equal.value == pytest.approx(1.0, rel=0.05)


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


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        slow, fast = (timing(list(mean * rng.lognormal(sigma=0.1, size=200)), 20) for mean in (1.5, 1.0))
        result = ratio(slow, fast)
        covered += result.ci_low <= 1.5 <= result.ci_high
    assert covered >= 51
