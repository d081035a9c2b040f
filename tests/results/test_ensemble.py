"""Statistics over starts: how often a verdict is wrong, by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from mlff_exp.config.gate import Gate, Limit
from mlff_exp.measure.conservation import (
    DRIFT_K,
    ERROR_K,
    HEATING,
    HEATING_OF_THERMAL,
    SLOPE_OF_WALK,
    WALK,
    ensemble_conservation,
)
from mlff_exp.results.ensemble import is_within, mean_of_starts, spread_of_starts, starts_that_decide
from mlff_exp.results.estimate import Estimate
from mlff_exp.results.gate import SEVERAL, judge_gate
from mlff_exp.results.verdict import Decision

N_ATOMS, THERMAL_EV, DURATION_PS, N_FRAMES = 12, 0.776, 100.0, 201
GATE = Gate(
    "strict",
    {HEATING: Limit(-0.01, 0.01), HEATING_OF_THERMAL: Limit(-1, 1), WALK: Limit(max=1)},
)
TIMES = np.linspace(0, DURATION_PS, N_FRAMES)
PERCENT = THERMAL_EV / 100  # eV
FLUCTUATION_EV = 0.002 * THERMAL_EV


def simulated(heating: float, walk: float, n_starts: int, rng: np.random.Generator) -> np.ndarray:
    """Total energies, eV, with heating and walk over the run in percent of the thermal energy."""
    deviation = walk * PERCENT / np.sqrt(SLOPE_OF_WALK)  # of the energy at the end, so that slopes spread by ``walk``
    steps = rng.normal(0, deviation / np.sqrt(N_FRAMES - 1), (N_FRAMES - 1, n_starts))
    walks = np.vstack([np.zeros(n_starts), np.cumsum(steps, axis=0)])
    fluctuation = rng.normal(0, FLUCTUATION_EV, (N_FRAMES, n_starts))
    return THERMAL_EV + heating * PERCENT * TIMES[:, None] / DURATION_PS + walks + fluctuation


def decided(heating: float, walk: float, n_starts: int, rng: np.random.Generator) -> Decision:
    total = simulated(heating, walk, n_starts, rng)
    metrics = ensemble_conservation(TIMES, total, np.full(total.shape, 300.0), N_ATOMS, 0.0, 300.0)
    return judge_gate(metrics, GATE, n_starts=n_starts).decision


# In percent of the thermal energy over the run; 1 is the limit of both.
STABLE = ((0.0, 0.3), (0.5, 0.3), (0.0, 0.7), (-0.9, 0.9), (0.95, 0.2))
UNSTABLE = ((1.5, 0.3), (0.0, 1.5), (-1.1, 1.1), (1.05, 0.2), (0.0, 1.05))


@pytest.mark.parametrize("n_starts", [1, 3, 5, 8, 32, 200])
@pytest.mark.parametrize(("heating", "walk"), [*STABLE, *UNSTABLE])
def test_at_most_one_verdict_in_twenty_is_wrong(heating: float, walk: float, n_starts: int) -> None:
    rng = np.random.default_rng(n_starts)
    n_tried = 40 if n_starts > 8 else 150
    wrong: Decision = "NO-GO" if (heating, walk) in STABLE else "GO"
    n_wrong = sum(decided(heating, walk, n_starts, rng) == wrong for _ in range(n_tried))
    # Two standard errors of a rate of 5% above it.
    assert n_wrong <= n_tried * (0.05 + 2 * np.sqrt(0.05 * 0.95 / n_tried))


@pytest.mark.parametrize(("heating", "walk", "right"), [(0.0, 0.3, "GO"), (0.3, 0.6, "GO"), (2.0, 0.3, "NO-GO")])
def test_more_starts_leave_less_undecided(heating: float, walk: float, right: Decision) -> None:
    rng = np.random.default_rng(0)
    rates = []
    for n_starts in (3, 8, 32, 200):
        found = [decided(heating, walk, n_starts, rng) for _ in range(40)]
        rates.append(found.count("UNDECIDED"))
        assert found.count(right) >= found.count("GO") + found.count("NO-GO") - found.count("UNDECIDED") - 2
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0


def test_the_interval_of_a_mean_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    means = [mean_of_starts(rng.normal(0.003, 0.01, n)) for n in (2, 3, 8) for _ in range(500)]
    covered = np.mean([mean.low <= 0.003 <= mean.high for mean in means])
    assert 0.93 <= covered <= 0.97
    assert all(mean.value == pytest.approx((mean.low + mean.high) / 2) for mean in means)


def test_the_interval_of_a_spread_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    spreads = [spread_of_starts(rng.normal(0.003, 0.01, n)) for n in (2, 3, 8) for _ in range(500)]
    covered = np.mean([spread.low <= 0.01 <= spread.high for spread in spreads])
    assert 0.93 <= covered <= 0.97


BY_TEMPERATURE = {
    ERROR_K: Gate("mean", {ERROR_K: Limit(-20, 20)}),
    DRIFT_K: Gate("drift", {DRIFT_K: Limit(-10, 10)}),
}


def decided_by_temperature(
    metric: str, wrong_by_k: float, memory: float, n_starts: int, n_tried: int
) -> list[Decision]:
    """Verdicts on twelve atoms at 300 K whose temperatures have the canonical spread.

    Args:
        metric: the criterion.
        wrong_by_k: its true value.
        memory: time in which a temperature forgets itself, as a share of the run.
        n_starts: starts of each ensemble.
        n_tried: number of ensembles.
    """
    rng, n_frames = np.random.default_rng(n_starts), 101
    spread_k, kept = 300 * np.sqrt(2 / (3 * N_ATOMS - 6)), np.exp(-1 / (n_frames * memory))
    frames = [rng.normal(size=(n_tried, n_starts))]
    for _ in range(n_frames - 1):
        frames.append(kept * frames[-1] + np.sqrt(1 - kept**2) * rng.normal(size=(n_tried, n_starts)))
    times = np.linspace(0, 1, n_frames)
    trend = 300 + (wrong_by_k * (times - 0.5) / 0.8 if metric == DRIFT_K else np.full(n_frames, wrong_by_k))
    temperatures = trend[:, None, None] + spread_k * np.array(frames)
    found = []
    for tried in range(n_tried):
        total = np.ones((n_frames, n_starts))
        metrics = ensemble_conservation(times, total, temperatures[:, tried], N_ATOMS, 0.0, 300.0)
        found.append(judge_gate(metrics, BY_TEMPERATURE[metric], n_starts=n_starts).decision)
    return found


@pytest.mark.parametrize("n_starts", [1, 2, 3, 8, 32])
@pytest.mark.parametrize("memory", [0.001, 0.1, 1.0, 10.0])  # from runs of many picoseconds to very short ones
@pytest.mark.parametrize(
    ("metric", "wrong_by_k", "wrong"),
    [
        (ERROR_K, 0.0, "NO-GO"),
        (ERROR_K, 18.0, "NO-GO"),
        (ERROR_K, 25.0, "GO"),
        (DRIFT_K, 0.0, "NO-GO"),
        (DRIFT_K, -9.0, "NO-GO"),
        (DRIFT_K, 12.0, "GO"),
    ],
)
def test_a_temperature_is_judged_wrongly_at_most_once_in_twenty(
    metric: str, wrong_by_k: float, wrong: Decision, memory: float, n_starts: int
) -> None:
    n_tried = 80
    n_wrong = decided_by_temperature(metric, wrong_by_k, memory, n_starts, n_tried).count(wrong)
    assert n_wrong <= n_tried * (0.05 + 2 * np.sqrt(0.05 * 0.95 / n_tried))


@pytest.mark.parametrize("metric", list(BY_TEMPERATURE))
def test_more_starts_decide_on_the_temperature(metric: str) -> None:
    rates = [decided_by_temperature(metric, 0.0, 0.001, n, 40).count("GO") for n in (1, 2, 8, 200)]
    assert rates == sorted(rates)
    assert rates[0] == 0
    assert rates[-1] == 40
    assert decided_by_temperature(metric, 60.0, 0.001, 32, 40).count("NO-GO") == 40


def test_one_start_is_never_go_because_nothing_is_known_of_the_walk() -> None:
    rng = np.random.default_rng(1)
    assert {decided(0.0, 0.01, 1, rng) for _ in range(20)} == {"UNDECIDED"}
    verdict = judge_gate({HEATING: 0.0, HEATING_OF_THERMAL: 0.0}, GATE)
    assert verdict.starts_that_decide == SEVERAL
    assert "energy_walk_percent_of_thermal is not measured, allowed is ≤ 1: about 8 starts would decide" in "".join(
        verdict.reasons
    )


def test_the_number_of_starts_that_is_named_decides() -> None:
    rng = np.random.default_rng(2)
    metrics = ensemble_conservation(
        TIMES, simulated(0.0, 0.5, 3, rng), np.full((N_FRAMES, 3), 300.0), N_ATOMS, 0.0, 300.0
    )
    verdict = judge_gate(metrics, GATE, n_starts=3)
    assert verdict.decision == "UNDECIDED"
    number = verdict.starts_that_decide
    assert number is not None
    assert 3 < number < 40
    assert any(f"task.replicas={number}" in reason or f"about {number} starts" in reason for reason in verdict.reasons)
    enough = 3 * number  # the spread of three starts is not the true one
    assert [decided(0.0, 0.5, enough, rng) for _ in range(10)].count("GO") >= 8


@pytest.mark.parametrize("statistic", ["mean", "spread"])
def test_the_least_number_decides_and_one_less_does_not(statistic: str) -> None:
    values = np.random.default_rng(3).normal(0.2, 0.7, 4)
    of = {"mean": mean_of_starts, "spread": spread_of_starts}[statistic]
    number = starts_that_decide(statistic, of(values), 4, -1.0, 1.0)  # type: ignore[arg-type]
    assert number is not None

    def interval(n: int) -> Estimate:
        """An ensemble of the same mean and spread."""
        base = np.resize([-1.0, 1.0], n) if n % 2 == 0 else np.concatenate([np.resize([-1.0, 1.0], n - 1), [0.0]])
        return of(values.mean() + base / base.std(ddof=1) * values.std(ddof=1))

    assert is_within(interval(number), -1.0, 1.0) is not None
    assert number == 2 or is_within(interval(number - 1), -1.0, 1.0) is None


def test_a_value_at_its_limit_is_decided_by_no_number() -> None:
    assert starts_that_decide("spread", Estimate(1.0, 0.5, 3.0), 4, None, 1.0) is None


@pytest.mark.parametrize(
    ("interval", "within"),
    [((0.0, -0.5, 0.5), True), ((2.0, 1.5, 2.5), False), ((0.9, 0.7, 1.1), None), ((0.0, -3.0, 3.0), None)],
)
def test_an_interval_is_inside_outside_or_astride(interval: tuple[float, float, float], within: bool | None) -> None:
    assert is_within(Estimate(*interval), -1.0, 1.0) is within
