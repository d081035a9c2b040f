"""Whether forces are a gradient: the work that they do around small closed loops."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mlff_exp.engines import Engine
from mlff_exp.measure.physics import Array
from mlff_exp.structures import AtomicBatch

RADIUS_ANG = 0.02  # root mean square distance of an atom from the centre of a loop
DISPLACEMENT_ANG = 0.05  # standard deviation of the coordinates of a centre about the geometry given
N_POINTS = 64


def loop_work(engine: Engine, batch: AtomicBatch, rng: np.random.Generator) -> tuple[Array, Array]:
    """Work of the forces around one random loop for each system of a batch.

    A loop is the circle x(θ) = x₀ + r (u cos θ + v sin θ) in the space of all coordinates of a system: x₀ is off the
    geometry given, u and v are random orthogonal directions, and r = `RADIUS_ANG` √N. The integrals are means over
    equally spaced angles, whose error falls exponentially with their number for an analytic force and by a power of it
    for a force with kinks in a derivative, as at a cutoff; it is 1e-6 of ∮ |F·dr| for the shipped students in FP64.

    Args:
        engine: gives the forces.
        batch: systems near a minimum; its neighbours must be valid when atoms move by some tenths of an Å.
        rng: draws centres and planes.

    Returns:
        ∮ F·dr and ∮ |F·dr|, [n_systems] eV each.
    """
    centre = batch.positions + DISPLACEMENT_ANG * _drawn(batch, rng)
    first = _normalised(batch, _drawn(batch, rng))
    second = _drawn(batch, rng)
    second = _normalised(batch, second - _spread(batch, _dot(batch, first, second)) * first)
    radius = RADIUS_ANG * batch.per_system(batch.is_atom).sum(dim=1).double().sqrt()
    radii = _spread(batch, radius)
    work = torch.zeros(batch.n_systems, dtype=torch.float64, device=centre.device)
    moved = torch.zeros_like(work)
    for angle in 2 * np.pi * np.arange(N_POINTS) / N_POINTS:
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        forces = engine(batch.with_positions(centre + radii * (cos * first + sin * second))).forces
        along = _dot(batch, forces.double(), cos * second - sin * first)
        work += along
        moved += along.abs()
    step = 2 * np.pi * radius / N_POINTS
    return (work * step).cpu().numpy(), (moved * step).cpu().numpy()


def circulation_error(work: Array, moved: Array) -> float:
    """Largest |∮ F·dr| of several loops of one system over the mean of their ∮ |F·dr|.

    It is zero for a gradient, and of the order of one for forces that have as much curl as stiffness.

    Rounding: errors of the forces that have a relative size ε and no memory from one of n points to the next make work
    of √(π/2) ε / √n; errors that follow the path all the way round would make √(π/2) ε. FP32 is allowed ε = 1e-5
    against FP64 (`TOLERANCES`), so that its circulation is 2e-6, and 1.3e-5 at the worst. The limit of ``gate=strict``
    is 2e-5. FP16 has an ε of some 1e-3 and can't be told from forces with a curl.

    Args:
        work: [n_loops] ∮ F·dr, eV.
        moved: [n_loops] ∮ |F·dr|, eV.

    Returns:
        NaN if no force acts along any loop.
    """
    return float(np.abs(work).max() / moved.mean()) if moved.any() else float("nan")


def _drawn(batch: AtomicBatch, rng: np.random.Generator) -> Tensor:
    """[n_rows, 3] normal numbers, zero for padding."""
    drawn = torch.from_numpy(rng.normal(size=tuple(batch.positions.shape))).to(batch.positions.device)
    return drawn * batch.is_atom.unsqueeze(-1)


def _dot(batch: AtomicBatch, one: Tensor, other: Tensor) -> Tensor:
    """[n_systems] product of two vectors in the space of all coordinates of a system."""
    return batch.per_system(one * other).sum(dim=(1, 2))


def _normalised(batch: AtomicBatch, vectors: Tensor) -> Tensor:
    """[n_rows, 3] of length 1 for each system."""
    return vectors / _spread(batch, _dot(batch, vectors, vectors).sqrt())


def _spread(batch: AtomicBatch, of_systems: Tensor) -> Tensor:
    """[n_rows, 1] the value of each row's system."""
    return of_systems.repeat_interleave(batch.n_slots).unsqueeze(-1)
