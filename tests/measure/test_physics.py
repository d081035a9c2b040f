"""Errors, drift, fluctuation and temperature of series whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import molecule
from hypothesis import given
from hypothesis import strategies as st

from mlff_exp.measure.physics import (
    accuracy_vs_fp64,
    accuracy_vs_teacher,
    internal_degrees_of_freedom,
    kinetic_temperature,
    linear_slope,
)

TIMES = np.linspace(0, 100, 2001)


@given(slope=st.floats(-1, 1), offset=st.floats(-500, 500))
def test_slope_of_a_line(slope: float, offset: float) -> None:
    fitted = linear_slope(TIMES, offset + slope * TIMES)
    assert fitted.value == pytest.approx(slope, abs=1e-9)
    assert fitted.low - 1e-9 <= slope <= fitted.high + 1e-9


def test_the_interval_of_a_slope_covers_the_truth_under_correlated_noise() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        noise = np.convolve(rng.normal(size=len(TIMES) + 20), np.ones(21) / 21, mode="valid")
        fitted = linear_slope(TIMES, 0.003 * TIMES + noise)
        covered += fitted.low <= 0.003 <= fitted.high
    assert 88 <= covered <= 100


@pytest.mark.parametrize(
    ("name", "pbc", "expected"),
    [("C6H6", False, 30), ("CO2", False, 4), ("H2", False, 1), ("C2H2", False, 7), ("H2O", True, 6)],
)
def test_degrees_of_freedom(name: str, pbc: bool, expected: int) -> None:
    atoms = molecule(name)
    assert internal_degrees_of_freedom(atoms.positions, np.array([pbc] * 3)) == expected


def test_a_single_atom_has_no_temperature() -> None:
    with pytest.raises(ValueError, match="no internal degrees of freedom"):
        internal_degrees_of_freedom(np.zeros((1, 3)), np.zeros(3, dtype=bool))


def test_temperature_of_an_equipartitioned_system() -> None:
    assert kinetic_temperature(np.array([0.5 * 30 * units.kB * 300]), 30)[0] == pytest.approx(300)


def test_accuracy_of_known_errors() -> None:
    reference_forces = np.array([[3.0, 0, 0], [0, 4.0, 0]])
    metrics = accuracy_vs_fp64(
        np.array([-10.0, -20.002]),
        1.01 * reference_forces,
        np.array([-10.0, -20.0]),
        reference_forces,
        np.array([1, 2]),
    )
    assert metrics["energy_mae_vs_fp64_mev_per_atom"] == pytest.approx(0.5)
    assert metrics["energy_relative_mae_vs_fp64_percent"] == pytest.approx(0.005)
    assert metrics["force_relative_rmse_vs_fp64_percent"] == pytest.approx(1.0)
    assert metrics["force_rmse_vs_fp64_mev_per_ang"] == pytest.approx(1e3 * 0.05 / np.sqrt(6))
    assert metrics["force_worst_atom_vs_fp64_mev_per_ang"] == pytest.approx(40)
    assert "energy_mae_vs_fp64_percent_of_atomisation" not in metrics
    of_atomisation = accuracy_vs_fp64(
        np.array([-10.0, -20.002]),
        reference_forces,
        np.array([-10.0, -20.0]),
        reference_forces,
        np.array([1, 2]),
        np.array([-9.0, -18.0]),
    )
    assert of_atomisation["energy_mae_vs_fp64_percent_of_atomisation"] == pytest.approx(0.05)


def test_a_reference_of_zero_has_no_relative_error() -> None:
    energy, forces = np.array([0.0]), np.zeros((1, 3))
    metrics = accuracy_vs_fp64(energy + 0.001, forces, energy, forces, np.array([1]))
    assert metrics == {
        "energy_mae_vs_fp64_mev_per_atom": pytest.approx(1.0),
        "force_rmse_vs_fp64_mev_per_ang": 0.0,
        "force_worst_atom_vs_fp64_mev_per_ang": 0.0,
    }


def test_labels_that_differ_by_rounding_have_no_r2() -> None:
    forces = np.full((6, 3), 0.1)
    labels = forces + 1e-17 * np.arange(18).reshape(6, 3)
    one = np.array([6])
    metrics = accuracy_vs_teacher(np.zeros(1), forces + 1, np.zeros(1), labels, one)
    assert metrics["force_mae_mev_per_ang"] == pytest.approx(1000)
    assert "force_r2" not in metrics
    assert "force_r2" in accuracy_vs_teacher(np.zeros(1), forces, np.zeros(1), labels + np.eye(6, 3), one)
    tiny = np.full((6, 3), 1e-16)
    found = accuracy_vs_fp64(np.ones(1), tiny + 1e-5, np.ones(1), tiny, one, np.ones(1) + 1e-13)
    assert "force_relative_rmse_vs_fp64_percent" not in found
    assert "energy_mae_vs_fp64_percent_of_atomisation" not in found


def test_errors_of_the_stress_are_in_gpa_and_relative_to_its_root_mean_square() -> None:
    stress = np.random.default_rng(0).normal(size=(4, 3, 3))
    none, one = np.zeros((1, 3)), np.ones(4, dtype=int)
    plain = (np.ones(4), none, np.ones(4), none, one)
    found = accuracy_vs_fp64(*plain, stress=1.01 * stress, reference_stress=stress)
    assert found["stress_relative_rmse_vs_fp64_percent"] == pytest.approx(1)
    assert found["stress_rmse_vs_fp64_gpa"] == pytest.approx(160.2177 * 0.01 * np.sqrt(np.square(stress).mean()))
    at_rest = accuracy_vs_fp64(*plain, stress=0 * stress + 1 / 160.2177, reference_stress=0 * stress)
    assert at_rest["stress_rmse_vs_fp64_gpa"] == pytest.approx(1)
    assert "stress_relative_rmse_vs_fp64_percent" not in at_rest
    assert not any("stress" in name for name in accuracy_vs_fp64(*plain))
