"""Heating, walk and temperature of known trajectories."""

from __future__ import annotations

import numpy as np
import pytest

from mlff_exp.measure.conservation import ensemble_conservation, slope_of_one_start

TIMES = np.linspace(0, 100, 2001)


def test_conservation_of_a_known_trajectory() -> None:
    # 12 atoms that gain 0.12 eV in 100 ps while oscillating by 0.01 eV, on a total of -431 eV.
    total = -431 + 0.0012 * TIMES + 0.01 * np.sin(2 * np.pi * TIMES / 0.37)
    temperatures = 300 + 0.1 * TIMES
    minimum = float(total.mean()) - 0.776
    metrics = ensemble_conservation(TIMES, total[:, None], temperatures[:, None], 12, minimum, 300.0)
    assert metrics["energy_drift_mev_per_atom_per_ps"] == pytest.approx(0.1, rel=0.01)
    assert metrics["energy_drift_mean_mev_per_atom_per_ps"] == pytest.approx(0.1, rel=0.01)
    assert metrics["energy_drift_percent_of_thermal"] == pytest.approx(100 * 0.12 / 0.776, rel=0.01)
    assert abs(metrics["energy_drift_percent"]) < 0.04  # the plan's criterion sees nothing
    assert metrics["energy_fluctuation_mev_per_atom"] == pytest.approx(10 / np.sqrt(2) / 12, rel=0.01)
    assert metrics["temperature_mean_k"] == pytest.approx(305)
    assert metrics["temperature_error_k"] == pytest.approx(5)
    assert metrics["temperature_drift_k"] == pytest.approx(8, rel=0.01)


def test_heating_and_walk_of_known_slopes() -> None:
    slopes = np.array([-0.001, 0.0, 0.001, 0.002])  # eV/ps
    total = -431 + TIMES[:, None] * slopes
    metrics = ensemble_conservation(TIMES, total, np.full(total.shape, 310.0), 10, -432.0, 300.0)
    assert metrics["energy_drift_mean_mev_per_atom_per_ps"] == pytest.approx(0.05)
    assert metrics["energy_drift_mev_per_atom_per_ps"] == pytest.approx(0.2)
    thermal = 1 + 50 * slopes.mean()
    assert metrics["energy_drift_mean_percent_of_thermal"] == pytest.approx(100 * 100 * slopes.mean() / thermal)
    assert metrics["energy_walk_percent_of_thermal"] == pytest.approx(100 * 100 * slopes.std(ddof=1) / thermal)
    assert metrics["energy_walk_percent_of_thermal_ci_high"] > metrics["energy_walk_percent_of_thermal"]
    assert metrics["temperature_error_k"] == pytest.approx(10)


def test_there_is_no_percentage_of_a_thermal_energy_that_is_not_positive() -> None:
    total = np.full((2001, 2), -431.0)
    total[:, 1] = -433.0
    metrics = ensemble_conservation(TIMES, total, np.full(total.shape, 300.0), 10, -432.0, 300.0)
    assert not any("thermal" in name for name in metrics)


def test_the_interval_of_one_start_allows_for_a_walk() -> None:
    """The interval about a fitted line would hold the truth in one case of three."""
    rng = np.random.default_rng(0)
    times = np.linspace(0, 100, 401)
    held = 0
    for _ in range(400):
        walk = np.cumsum(rng.normal(0, 0.05, len(times)))
        slope = slope_of_one_start(times, 0.003 * times + walk)
        held += slope.low <= 0.003 <= slope.high
    assert 0.92 <= held / 400 <= 0.98


def test_the_drift_of_the_temperature_has_an_interval_over_the_starts() -> None:
    """Two short starts whose temperatures swing by tens of kelvin say nothing of it; many do."""
    rng = np.random.default_rng(0)
    for n_starts, decided in ((2, False), (200, True)):
        swing = 300 + np.outer(np.linspace(-0.5, 0.5, len(TIMES)), rng.normal(5, 40, n_starts))
        metrics = ensemble_conservation(TIMES, np.full(swing.shape, -1.0), swing, 24, -2.0, 300.0)
        low, high = metrics["temperature_drift_k_ci_low"], metrics["temperature_drift_k_ci_high"]
        assert low <= metrics["temperature_drift_k"] <= high
        assert (low > -10 and high < 10) == decided
