"""A number with its interval, and the names that it has among metrics."""

from __future__ import annotations

import pytest

from mlff_exp.results.estimate import Estimate


def test_an_estimate_becomes_three_metrics_and_is_read_from_them() -> None:
    found = Estimate(2.0, 1.5, 3.0).as_metrics("speedup_vs_fp32")
    assert found == {"speedup_vs_fp32": 2.0, "speedup_vs_fp32_ci_low": 1.5, "speedup_vs_fp32_ci_high": 3.0}
    assert Estimate.from_metrics("speedup_vs_fp32", found) == Estimate(2.0, 1.5, 3.0)
    assert Estimate.from_metrics("steps_per_s", {"steps_per_s": 4.0}) == Estimate.exact(4.0)


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (Estimate(305.0, 302.0, 309.0), Estimate(5.0, 2.0, 9.0)),
        (Estimate(-0.5, -0.7, -0.1), Estimate(0.5, 0.1, 0.7)),
        (Estimate(0.1, -0.3, 0.2), Estimate(0.1, 0.0, 0.3)),
    ],
)
def test_the_distance_from_an_ideal_covers_the_interval(estimate: Estimate, expected: Estimate) -> None:
    ideal = 300.0 if estimate.value > 1 else 0.0
    assert estimate.distance_from(ideal) == expected


def test_a_positive_multiple_scales_the_interval() -> None:
    assert Estimate(2.0, 1.0, 3.0).scaled(2.0) == Estimate(4.0, 2.0, 6.0)
