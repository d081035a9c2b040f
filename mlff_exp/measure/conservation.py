"""How well an ensemble of starts conserves its energy.

The total energy of a start is modelled as E(t) = E₀ + h t + W(t) + f(t). Heating h is common to all starts. The walk W
is a Brownian motion of variance s² t, independent from start to start. The rest f fluctuates about zero within a few
picoseconds. The fitted slope of one start then scatters by √(6/5) s/√T about h over a run of length T.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri, stdtrit

from mlff_exp.measure.physics import Array, linear_slope, root_mean_square
from mlff_exp.results import Estimate, mean_of_starts, spread_of_starts

HEATING = "energy_drift_mean_mev_per_atom_per_ps"
HEATING_OF_THERMAL = "energy_drift_mean_percent_of_thermal"
WALK = "energy_walk_percent_of_thermal"
DRIFT_K, ERROR_K = "temperature_drift_k", "temperature_error_k"

N_BLOCKS = 10  # of one trajectory
FIFTHS_OF_WALK = 11 / 15  # variance of the last fifth's average less that of the first, in units of s²T
SLOPE_OF_WALK = 6 / 5  # variance of the least-squares slope of a Brownian motion, in units of s²/T


def ensemble_conservation(
    times_ps: Array, total: Array, temperatures: Array, n_atoms: int, minimum_energy: float, temperature_k: float
) -> dict[str, float]:
    """Heating, walk, fluctuation and temperature of an ensemble of starts of one system.

    Args:
        times_ps: [n_frames] ps, at least `N_BLOCKS`.
        total: [n_frames, n_starts] potential plus kinetic energy, eV.
        temperatures: [n_frames, n_starts] K over internal degrees of freedom.
        n_atoms: of the system.
        minimum_energy: potential energy of the minimum, eV.
        temperature_k: that the starts were prepared at.

    Returns:
        Finite metrics: statistics over the starts, and the drift of the start that drifts most. Percentages of the
        thermal energy E − E_min are absent if a start has none, those of the total energy if that is zero. The walk is
        absent with one start; other statistics over the starts have an interval of their own there.
    """
    duration_ps, n_starts, per_atom = float(times_ps[-1] - times_ps[0]), total.shape[1], 1e3 / n_atoms
    slopes, intercepts = np.polyfit(times_ps - times_ps.mean(), total, 1)  # [n_starts] eV/ps and eV
    fluctuations = np.std(total - np.outer(times_ps - times_ps.mean(), slopes) - intercepts, axis=0)
    steepest = int(np.argmax(np.abs(slopes)))
    fifth = len(times_ps) // 5
    heating = mean_of_starts(slopes) if n_starts > 1 else slope_of_one_start(times_ps, total[:, 0])
    metrics = {
        **linear_slope(times_ps, total[:, steepest]).scaled(per_atom).as_metrics("energy_drift_mev_per_atom_per_ps"),
        **heating.scaled(per_atom).as_metrics(HEATING),
        "energy_fluctuation_mev_per_atom": per_atom * root_mean_square(fluctuations),
        "temperature_mean_k": float(temperatures.mean()),
    }
    errors_k = temperatures.mean(axis=0) - temperature_k  # [n_starts]
    drifts_k = temperatures[-fifth:].mean(axis=0) - temperatures[:fifth].mean(axis=0)  # [n_starts]
    if n_starts > 1:
        error_k, drift_k = mean_of_starts(errors_k), mean_of_starts(drifts_k)
    else:
        error_k = error_of_one_start(float(errors_k[0]), n_atoms, temperature_k)
        drift_k = drift_of_one_start(temperatures[:, 0], float(drifts_k[0]))
    metrics |= error_k.as_metrics(ERROR_K) | drift_k.as_metrics(DRIFT_K)
    if total[0].all():
        metrics["energy_drift_percent"] = _largest(100 * (total[-1] - total[0]) / np.abs(total[0]))
    if total.mean(axis=0).all():
        metrics["energy_fluctuation_percent"] = _largest(100 * total.std(axis=0) / np.abs(total.mean(axis=0)))
    thermal = total.mean(axis=0) - minimum_energy
    if (thermal > 0).all():
        percent = 100 * duration_ps / float(thermal.mean())
        metrics["energy_drift_percent_of_thermal"] = _largest(100 * duration_ps * slopes / thermal)
        metrics["energy_fluctuation_percent_of_thermal"] = 100 * root_mean_square(fluctuations / thermal)
        metrics |= heating.scaled(percent).as_metrics(HEATING_OF_THERMAL)
        if n_starts > 1:
            metrics |= spread_of_starts(percent * slopes).as_metrics(WALK)
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def _largest(values: Array) -> float:
    return float(max(values, key=abs))


def slope_of_one_start(times_ps: Array, energy: Array) -> Estimate:
    """Slope of one trajectory with a 95% interval that allows for a walk of the energy, in units of energy per ps.

    The interval about a fitted line is too narrow for a walk, whose points do not scatter about a line. The steps from
    one block average to the next do not depend on each other but for neighbours: with blocks of length τ their variance
    is (2/3) s²τ, and neighbours correlate by 1/4. Where the energy fluctuates and does not walk, the interval is too
    wide.

    Args:
        times_ps: [n_frames] ps, at least `N_BLOCKS`.
        energy: [n_frames] in any unit.
    """
    duration_ps = float(times_ps[-1] - times_ps[0])
    slope = float(np.polyfit(times_ps - times_ps.mean(), energy, 1)[0])
    half_width = _student_t_of_walk() * float(np.sqrt(SLOPE_OF_WALK * _walk_over_run(energy))) / duration_ps
    return Estimate(slope, slope - half_width, slope + half_width)


def drift_of_one_start(temperatures: Array, drift_k: float) -> Estimate:
    """Drift of the temperature of one trajectory with a 95% interval that allows for slow changes of any length, K.

    The interval is that of `slope_of_one_start` for the difference of two averages. A temperature that forgets itself
    within a block makes it too wide; one that changes as slowly as the run is long does not make it too narrow.

    Args:
        temperatures: [n_frames] K, at least `N_BLOCKS`.
        drift_k: mean of the last fifth less that of the first fifth, K.
    """
    half_width = _student_t_of_walk() * float(np.sqrt(FIFTHS_OF_WALK * _walk_over_run(temperatures)))
    return Estimate(drift_k, drift_k - half_width, drift_k + half_width)


def error_of_one_start(error_k: float, n_atoms: int, temperature_k: float) -> Estimate:
    """Error of the mean temperature of one trajectory with a 95% interval by the canonical ensemble, K.

    How far the mean of one start is off by chance can't be seen within it. The temperature of f degrees of freedom has
    a standard deviation of T √(2/f); the mean of a short trajectory has no less, and of a long one about 0.7 of it.

    Args:
        error_k: mean temperature less the one asked for, K.
        n_atoms: of the system.
        temperature_k: asked for, K.
    """
    half_width = float(ndtri(0.975)) * temperature_k * float(np.sqrt(2 / max(1, 3 * n_atoms - 6)))
    return Estimate(error_k, error_k - half_width, error_k + half_width)


def _walk_over_run(values: Array) -> float:
    """Variance s²T that a walk reaches over the run, from the steps between `N_BLOCKS` block averages."""
    blocks = np.array([block.mean() for block in np.array_split(values, N_BLOCKS)])
    return 1.5 * N_BLOCKS * float(np.diff(blocks).var(ddof=1))


def _student_t_of_walk() -> float:
    """Student's t of 97.5% for a variance of the correlated steps between blocks."""
    return float(stdtrit((N_BLOCKS - 2) / (1 + 2 * 0.25**2), 0.975))
