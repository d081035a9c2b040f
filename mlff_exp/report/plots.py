"""Draw the figures of single runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols

from mlff_exp.dynamics import Trajectory
from mlff_exp.measure import linear_slope
from mlff_exp.report.drawing import subplots
from mlff_exp.results import Timing
from mlff_exp.structures import Dataset

MIN_FITTED = 10  # frames
MAX_LEGEND = 8


def plot_latency(timing: Mapping[str, Timing], path: Path) -> None:
    """Draw the distribution of the samples of every timing."""
    figure, axes = subplots(figsize=(8, 4))
    names = list(timing)
    axes.violinplot([timing[name].values_ms for name in names], showmedians=True)
    axes.set_xticks(range(1, len(names) + 1), [name.replace("_", " ") for name in names])
    axes.set_yscale("log")
    axes.set_ylabel("latency / ms")
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=120)


def plot_nve(trajectory: Trajectory, names: Sequence[str], temperature_k: float, path: Path) -> None:
    """Draw total energy with its drift and the drift's interval, temperature, displacement and bond change."""
    figure, ((energy, temperature), (displacement, bond)) = subplots(2, 2, figsize=(11, 7), sharex=True)
    times = trajectory.times_ps
    total = trajectory.potential + trajectory.kinetic
    for replica, name in enumerate(names):
        change = 1000 * (total[:, replica] - total[0, replica])
        (line,) = energy.plot(times, change, lw=0.6, alpha=0.7)
        finite = np.isfinite(change)
        if finite.sum() >= MIN_FITTED:
            slope = linear_slope(times[finite], change[finite])
            middle, centre = times[finite].mean(), change[finite].mean()
            low, fit, high = (centre + value * (times - middle) for value in (slope.low, slope.value, slope.high))
            energy.plot(times, fit, color=line.get_color(), ls="--", label=f"{name}: {slope.value:.3g} meV/ps")
            energy.fill_between(times, low, high, color=line.get_color(), alpha=0.15, lw=0)
        temperature.plot(times, trajectory.temperature[:, replica], lw=0.6, alpha=0.7)
        displacement.plot(times, trajectory.displacement[:, replica], lw=0.8)
        bond.plot(times, trajectory.bond_change[:, replica], lw=0.8)
    temperature.axhline(temperature_k, color="black", lw=0.8)
    energy.set_ylabel("total energy − start / meV")
    if energy.get_legend_handles_labels()[0] and len(names) <= MAX_LEGEND:
        energy.legend(fontsize="small")
    temperature.set_ylabel("temperature / K")
    displacement.set_ylabel("largest displacement / Å")
    bond.set_ylabel("largest bond change / Å")
    for axes in (displacement, bond):
        axes.set_xlabel("time / ps")
    figure.savefig(path, dpi=120)


def plot_training(losses: Sequence[tuple[int, float]], path: Path) -> None:
    """Draw the loss against steps."""
    figure, axes = subplots(figsize=(7, 4))
    steps, values = zip(*losses, strict=True)
    axes.plot(steps, values)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss / (eV/Å)")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def plot_accuracy(
    dataset: Dataset,
    energies: npt.NDArray[np.float64],
    forces: npt.NDArray[np.float64],
    reference_energies: Mapping[str, float],
    path: Path,
) -> None:
    """Draw parity with the teacher and histograms of errors, for energies per atom and components of forces."""
    figure, ((parity_e, parity_f), (error_e, error_f)) = subplots(2, 2, figsize=(11, 9))
    per_atom = np.zeros(len(chemical_symbols))
    for symbol, energy in reference_energies.items():
        per_atom[chemical_symbols.index(symbol)] = energy
    isolated = np.add.reduceat(per_atom[dataset.atomic_numbers], dataset.starts)
    pairs = (
        (parity_e, error_e, (dataset.energies - isolated) / dataset.counts, (energies - isolated) / dataset.counts,
         "energy of binding / (eV/atom)", "error / (meV/atom)"),
        (parity_f, error_f, dataset.forces.ravel(), forces.ravel(), "force / (eV/Å)", "error / (meV/Å)"),
    )  # fmt: skip
    for parity, histogram, teacher, student, quantity, error in pairs:
        parity.hexbin(teacher, student, gridsize=80, bins="log", mincnt=1)
        ends = [min(teacher.min(), student.min()), max(teacher.max(), student.max())]
        parity.plot(ends, ends, color="black", lw=0.6)
        parity.set_xlabel(f"teacher: {quantity}")
        parity.set_ylabel(f"student: {quantity}")
        errors = 1000 * (student - teacher)
        span = np.percentile(np.abs(errors), 99.5)
        histogram.hist(errors.clip(-span, span), bins=120)
        histogram.set_yscale("log")
        histogram.set_xlabel(f"{error}; the outermost half percent at the ends")
        histogram.set_ylabel("count")
    figure.savefig(path, dpi=110)
