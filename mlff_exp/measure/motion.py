"""Where the kinetic energy of a trajectory is: centre of mass, rotation, elements and stretching bonds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlff_exp.measure.physics import Array
from mlff_exp.results import mean_of_starts

FLAT = 1e-6  # of the largest moment of inertia; a smaller one is that of a linear molecule about its axis
Indices = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Motion:
    """Kinetic energy of one start, by parts.

    Attributes:
        translation: [n_frames] of the centre of mass, eV.
        rotation: [n_frames] of the system as a rigid body, eV; None where rotation is not free.
        drift: [n_frames] distance of the centre of mass from its start, Å.
        shares: [n_frames, n_groups] kinetic energy of each group, eV.
        expected: [n_frames, n_groups] by equipartition of the total kinetic energy, eV.
        total: [n_frames] eV.
    """

    translation: Array
    rotation: Array | None
    drift: Array
    shares: Array
    expected: Array
    total: Array


def motion_of_start(
    positions: Array,
    velocities: Array,
    masses: Array,
    n_rotations: int,
    groups: Sequence[Indices],
    stretches: tuple[Indices, Indices, Array] | None = None,
) -> Motion:
    """Split the kinetic energy of one start.

    In a system without linear and angular momentum ½ kT is the mean kinetic energy of each direction of mass-weighted
    space that is neither a translation nor a rotation. An atom has 3 − 3 mᵢ/M − Σₐ mᵢ |eₐ × rᵢ|² / Iₐ of these, with
    the principal axes eₐ and moments of inertia Iₐ. The stretching of a bond is one of them, with the reduced mass.

    Args:
        positions: [n_frames, n_atoms, 3] Å, finite, not wrapped into the cell.
        velocities: the same shape, ASE's units.
        masses: [n_atoms] u.
        n_rotations: 3, 2 for a linear molecule, 0 in a periodic cell.
        groups: indices of the atoms of each group.
        stretches: first and second atoms [n_bonds] and shifts [n_bonds, 3] Å to the bonded image of the second; they
            are the last group. None or no bonds: there is no such group.
    """
    mass, total_mass = masses[:, None], masses.sum()
    centre = (mass * positions).sum(axis=1) / total_mass
    momentum = (mass * velocities).sum(axis=1)
    arms = positions - centre[:, None]
    kinetic = 0.5 * masses * np.square(velocities).sum(axis=2)
    free = np.full(kinetic.shape, 3.0) - 3 * masses / total_mass
    rotation = np.zeros(len(positions))
    if n_rotations > 0:
        squares = np.einsum("i,fia,fib->fab", masses, arms, arms)
        inertia = np.trace(squares, axis1=1, axis2=2)[:, None, None] * np.eye(3) - squares
        moments, axes = np.linalg.eigh(inertia)  # ascending, so that the axis of a linear molecule comes first
        spin = np.einsum("fia,fab->fb", np.cross(arms, mass * velocities), axes)
        for axis in range(3 - n_rotations, 3):
            moment = np.maximum(moments[:, axis], FLAT * moments[:, 2])
            rotation += 0.5 * spin[:, axis] ** 2 / moment
            turned = np.cross(axes[:, None, :, axis], arms)
            free -= masses * np.square(turned).sum(axis=2) / moment[:, None]
    thermal = 2 * kinetic.sum(axis=1) / free.sum(axis=1)  # kT, eV
    shares = [kinetic[:, group].sum(axis=1) for group in groups]
    expected = [0.5 * thermal * free[:, group].sum(axis=1) for group in groups]
    if stretches is not None and len(stretches[0]):
        first, second, shifts = stretches
        arrows = positions[:, second] + shifts - positions[:, first]
        arrows /= np.linalg.norm(arrows, axis=2, keepdims=True)
        along = ((velocities[:, second] - velocities[:, first]) * arrows).sum(axis=2)
        reduced = masses[first] * masses[second] / (masses[first] + masses[second])
        shares.append(0.5 * (reduced * np.square(along)).sum(axis=1))
        expected.append(0.5 * thermal * len(first))
    return Motion(
        translation=0.5 * np.square(momentum).sum(axis=1) / total_mass,
        rotation=rotation if n_rotations > 0 else None,
        drift=np.linalg.norm(centre - centre[0], axis=1),
        shares=np.array(shares).reshape(-1, len(positions)).T,
        expected=np.array(expected).reshape(-1, len(positions)).T,
        total=kinetic.sum(axis=1),
    )


def motion_metrics(motions: Sequence[Motion], groups: Sequence[str]) -> dict[str, float]:
    """Metrics of the starts of one system; with several starts each mean over them has its interval.

    Args:
        motions: one for each start.
        groups: names of the groups.
    """
    if not all(motion.total.any() for motion in motions):
        return {}
    metrics = {"centre_of_mass_drift_ang": max(float(motion.drift.max()) for motion in motions)}
    for metric, parts in (
        ("translation_percent_of_kinetic", [motion.translation for motion in motions]),
        ("rotation_percent_of_kinetic", [motion.rotation for motion in motions if motion.rotation is not None]),
    ):
        if parts:
            percents = [100 * part.sum() / motion.total.sum() for part, motion in zip(parts, motions, strict=True)]
            metrics |= _mean(metric, percents)
    ratios = [motion.shares.sum(axis=0) / motion.expected.sum(axis=0) for motion in motions]
    for group, of_starts in zip(groups, np.transpose(ratios), strict=True):
        metrics |= {f"{metric}/{group}": value for metric, value in _mean("equipartition_ratio", of_starts).items()}
    return metrics


def _mean(metric: str, of_starts: Sequence[float]) -> dict[str, float]:
    """Mean over the starts, with its interval if there are several."""
    if len(of_starts) == 1:
        return {metric: float(of_starts[0])}
    return mean_of_starts(np.array(of_starts)).as_metrics(metric)
