"""Whether forces are minus the gradient of the energy, by differences whose step suits the rounding of the energy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlff_exp.engines import Engine
from mlff_exp.structures import AtomicBatch

LEAST_STEP_ANG, N_STEPS = 1e-3, 6  # each step is twice the one before
LARGEST_MOVE_ANG = 4 * LEAST_STEP_ANG * 2 ** (N_STEPS - 1)  # of an atom, in any evaluation of this module
FINE_EV_PER_ANG = 1e-5  # rounding that makes no more than this of the differences at the least step asks for no other
N_POINTS = 16  # on each line on which the energy's rounding is measured
POINTS_ANG = 1e-3  # their distance: many times the rounding of a coordinate in FP32
ORDER = 6  # of the differences that leave nothing of a smooth energy
LARGEST_GRADIENT_ERROR_EV_PER_ANG = 1e-4  # that forces may have, as in gate=strict
FP32_ROUNDING = float(torch.finfo(torch.float32).eps)
# What is more than rounding in FP32 is a fault of the energy and excuses nothing. A calculator may have subtracted the
# energies of isolated atoms.
MOST_ROUNDINGS, ATOM_EV = 4.0, 10.0
MOST_TRUNCATION = 2.0  # of the allowance for rounding
DEVIATIONS = 6.0  # of the rounding of a slope; the largest of a hundred slopes is within four


def energy_rounding(engine: Engine, batch: AtomicBatch, directions: Tensor) -> float:
    """Measure the rounding error of an engine's energy: the standard deviation about a smooth curve.

    Sixth differences of the energy at equally spaced points along a line contain the rounding and nothing else: Hamming
    (Introduction to Applied Numerical Analysis, 1971); Moré & Wild, SIAM J. Sci. Comput. 33, 1292 (2011). The median
    over the lines leaves out one that crosses a jump. Energies that are all numbers of FP32 were rounded to them.

    Args:
        engine: any engine.
        batch: its neighbours must be valid within `LARGEST_MOVE_ANG`.
        directions: [n_rows, 3], of length 1 for each system.

    Returns:
        eV, of the system with the largest; at most `MOST_ROUNDINGS` of FP32.
    """
    steps = POINTS_ANG * (torch.arange(N_POINTS, dtype=torch.float64) - (N_POINTS - 1) / 2)
    energies = torch.stack([_energy(engine, batch, directions, float(step)) for step in steps])
    scatter = energies.diff(n=ORDER, dim=0).square().mean(dim=0).div(math.comb(2 * ORDER, ORDER)).sqrt()
    largest = energies.abs().amax(dim=0)
    if torch.equal(energies, energies.float().double()):
        scatter = torch.maximum(scatter, largest * FP32_ROUNDING / math.sqrt(12))
    n_atoms = batch.per_system(batch.is_atom).sum(dim=1)
    most = MOST_ROUNDINGS * FP32_ROUNDING * torch.maximum(largest, ATOM_EV * n_atoms)
    lines = torch.minimum(scatter, most)[n_atoms > 0]
    return float(lines.median())


def gradient_errors(engine: Engine, batch: AtomicBatch, directions: Tensor, rounding_ev: float) -> Tensor:
    """Return how far the force along a direction is from the differences of the energy, beyond rounding.

    The differences are those of `slope_errors`. What the rounding of the energy can make of them is subtracted. FP64
    takes the least step. A coarser energy takes the step that knows the slopes best: truncation counts as the largest
    change of the differences from one step to twice that step, and is subtracted as well.

    Args:
        engine: any engine.
        batch: as for `energy_rounding`.
        directions: [n_rows, 3], of length 1 for each system.
        rounding_ev: of the engine's energy, as from `energy_rounding`.

    Returns:
        [n_systems] eV/Å, 0 where rounding explains the difference.
    """
    explained = DEVIATIONS * math.sqrt(130) / 12 * rounding_ev / LEAST_STEP_ANG
    if explained <= FINE_EV_PER_ANG:
        return (slope_errors(engine, batch, directions, LEAST_STEP_ANG) - explained).clamp(min=0)
    steps = [LEAST_STEP_ANG * 2**power for power in range(N_STEPS + 2)]
    ends = [[_energy(engine, batch, directions, sign * step) for sign in (-1, 1)] for step in steps]
    slopes = torch.stack(
        [
            (8 * (plus - minus) - (far_plus - far_minus)) / (12 * step)
            for step, (minus, plus), (far_minus, far_plus) in zip(steps, ends, ends[1:], strict=False)
        ]
    )
    errors = (slopes + _force(engine, batch, directions)).abs()[:-1]
    truncation = slopes.diff(dim=0).abs().amax(dim=1)  # of one direction alone it may vanish by accident
    rounding = explained * 0.5 ** torch.arange(N_STEPS, dtype=truncation.dtype, device=truncation.device)
    # Where more is left than rounding and truncation in balance, the step is too long or the energy jumps.
    balanced = truncation <= MOST_TRUNCATION * rounding
    balanced[0] = True
    allowed = rounding + torch.minimum(truncation, MOST_TRUNCATION * rounding)
    best = int(allowed.where(balanced, math.inf).argmin())
    return (errors[best] - allowed[best]).clamp(min=0)


def slope_errors(engine: Engine, batch: AtomicBatch, directions: Tensor, step: float) -> Tensor:
    """Return the difference between the force along a direction and central differences of the energy.

    Fourth order: E′ = (E(−2h) − 8 E(−h) + 8 E(h) − E(2h)) / 12h.

    Args:
        engine: any engine.
        batch: its neighbours must be valid within two steps.
        directions: [n_rows, 3], of length 1 for each system.
        step: h, Å.

    Returns:
        [n_systems] eV/Å.
    """
    minus_two, minus, plus, plus_two = (
        _energy(engine, batch, directions, multiple * step) for multiple in (-2, -1, 1, 2)
    )
    slope = (minus_two - 8 * minus + 8 * plus - plus_two) / (12 * step)
    return (slope + _force(engine, batch, directions)).abs()


def _energy(engine: Engine, batch: AtomicBatch, directions: Tensor, step: float) -> Tensor:
    return engine(batch.with_positions(batch.positions + step * directions)).energy.double()


def _force(engine: Engine, batch: AtomicBatch, directions: Tensor) -> Tensor:
    return batch.per_system(engine(batch).forces * directions).sum(dim=(1, 2))
