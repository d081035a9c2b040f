"""Pure functions of arrays: errors, drift, fluctuation, temperature."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from ase import units
from scipy.special import stdtrit

from mlff_exp.results import Estimate
from mlff_exp.structures import RESOLUTION

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.integer[Any]]

SLOPE_BLOCKS = 10
# Energies (eV), forces (eV/Å) and stresses (eV/Å³) below these are rounding errors, and nothing is relative to them.
SMALLEST_ENERGY, SMALLEST_FORCE, SMALLEST_STRESS = 1e-6, 1e-6, 1e-9


def accuracy_vs_fp64(
    energy: Array,
    forces: Array,
    reference_energy: Array,
    reference_forces: Array,
    n_atoms: Counts,
    isolated_energy: Array | None = None,
    stress: Array | None = None,
    reference_stress: Array | None = None,
) -> dict[str, float]:
    """Errors of an engine against eager FP64 of the same weights.

    Args:
        energy: [n_systems] eV, of the engine.
        forces: [sum of n_atoms, 3] eV/Å, of the engine, without padding.
        reference_energy: [n_systems] eV, of eager FP64.
        reference_forces: [sum of n_atoms, 3] eV/Å, of eager FP64.
        n_atoms: [n_systems] atoms of each system.
        isolated_energy: [n_systems] eV, sum of the energies that the reference gives each atom by itself.
        stress: [n_systems, 3, 3] eV/Å³, of the engine, if it gives stress.
        reference_stress: [n_systems, 3, 3] eV/Å³, of eager FP64.

    Returns:
        The metrics; those of forces only if there are atoms, those of the stress only if there is one, and the relative
        ones only where what they are relative to is more than a rounding error, as the forces of single atoms are not.
    """
    energy_error = np.abs(energy - reference_energy)
    metrics = {"energy_mae_vs_fp64_mev_per_atom": 1e3 * float(np.mean(energy_error / n_atoms))}
    if len(forces):
        force_rmse, reference_rms = root_mean_square(forces - reference_forces), root_mean_square(reference_forces)
        metrics["force_rmse_vs_fp64_mev_per_ang"] = 1e3 * force_rmse
        worst = float(np.linalg.norm(forces - reference_forces, axis=1).max())
        metrics["force_worst_atom_vs_fp64_mev_per_ang"] = 1e3 * worst
        if reference_rms > SMALLEST_FORCE:
            metrics["force_relative_rmse_vs_fp64_percent"] = 100 * force_rmse / reference_rms
    if stress is not None and reference_stress is not None:
        stress_rmse, reference_rms = root_mean_square(stress - reference_stress), root_mean_square(reference_stress)
        metrics["stress_rmse_vs_fp64_gpa"] = stress_rmse / units.GPa
        if reference_rms > SMALLEST_STRESS:
            metrics["stress_relative_rmse_vs_fp64_percent"] = 100 * stress_rmse / reference_rms
    if isolated_energy is not None and (np.abs(reference_energy - isolated_energy) > SMALLEST_ENERGY).all():
        of_atomisation = float(np.mean(energy_error / np.abs(reference_energy - isolated_energy)))
        metrics["energy_mae_vs_fp64_percent_of_atomisation"] = 100 * of_atomisation
    if (np.abs(reference_energy) > SMALLEST_ENERGY).all():
        relative = float(np.mean(energy_error / np.abs(reference_energy)))
        metrics["energy_relative_mae_vs_fp64_percent"] = 100 * relative
    return metrics


def accuracy_vs_teacher(
    energy: Array, forces: Array, teacher_energy: Array, teacher_forces: Array, n_atoms: Counts
) -> dict[str, float]:
    """Compute errors against the labels; those of forces are left out without atoms, and R² where the labels are equal.

    Args:
        energy: [n_systems] eV, predicted.
        forces: [sum of n_atoms, 3] eV/Å, predicted, without padding.
        teacher_energy: [n_systems] eV, the labels.
        teacher_forces: [sum of n_atoms, 3] eV/Å, the labels.
        n_atoms: [n_systems] atoms of each system.
    """
    metrics = {"energy_mae_mev_per_atom": 1e3 * float(np.mean(np.abs(energy - teacher_energy) / n_atoms))}
    if len(forces) == 0:
        return metrics
    error = forces - teacher_forces
    spread = np.square(teacher_forces - teacher_forces.mean())
    metrics["force_mae_mev_per_ang"] = 1e3 * float(np.mean(np.abs(error)))
    metrics["force_rmse_mev_per_ang"] = 1e3 * root_mean_square(error)
    # Labels that differ by less than their resolution are equal.
    if spread.mean() > RESOLUTION**2:
        metrics["force_r2"] = 1 - float(np.square(error).sum() / spread.sum())
    return metrics


def root_mean_square(values: Array) -> float:
    """√⟨x²⟩."""
    return float(np.sqrt(np.mean(np.square(values))))


def linear_slope(x: Array, y: Array) -> Estimate:
    """Least-squares slope in units of y per unit of x, with its 95% interval.

    The interval comes from the scatter of block averages, which absorbs correlated oscillation:
    Flyvbjerg & Petersen, J. Chem. Phys. 91, 461 (1989), with a fixed number of blocks.

    Args:
        x: [n] increasing, at least `SLOPE_BLOCKS`.
        y: [n].
    """
    slope = float(np.polyfit(x - x.mean(), y, 1)[0])
    blocks_x = np.array([block.mean() for block in np.array_split(x, SLOPE_BLOCKS)])
    blocks_y = np.array([block.mean() for block in np.array_split(y, SLOPE_BLOCKS)])
    blocks_slope, intercept = np.polyfit(blocks_x, blocks_y, 1)
    residual = blocks_y - (blocks_slope * blocks_x + intercept)
    variance = np.sum(residual**2) / (SLOPE_BLOCKS - 2)
    quantile = float(stdtrit(SLOPE_BLOCKS - 2, 0.975))
    half_width = quantile * float(np.sqrt(variance / np.sum((blocks_x - blocks_x.mean()) ** 2)))
    return Estimate(slope, slope - half_width, slope + half_width)


def detrended_std(x: Array, y: Array) -> float:
    """Standard deviation about the least-squares line."""
    return float(np.std(y - np.polyval(np.polyfit(x, y, 1), x)))


def kinetic_temperature(kinetic_energy: Array, degrees_of_freedom: int) -> Array:
    """2 K / (k · dof) in kelvin, from eV."""
    temperature: Array = 2 * kinetic_energy / (units.kB * degrees_of_freedom)
    return temperature


def internal_degrees_of_freedom(positions: Array, pbc: npt.NDArray[np.bool_]) -> int:
    """3N−3 if periodic, 3N−5 if linear, 3N−6 otherwise.

    Args:
        positions: [n_atoms, 3] Å.
        pbc: [3].

    Raises:
        ValueError: a single free atom, which has no internal motion.
    """
    n_atoms = len(positions)
    if n_atoms < 2:
        raise ValueError("a single atom has no internal degrees of freedom and no temperature at rest")
    if pbc.any():
        return 3 * n_atoms - 3
    # Atoms on a line span one direction: the second singular value of the centred positions vanishes.
    spread = np.linalg.svd(positions - positions.mean(axis=0), compute_uv=False)
    linear = spread[1] < 1e-2 * spread[0]
    return 3 * n_atoms - (5 if linear else 6)
