"""Test forces that no engine of ours takes as a gradient: those of direct-force models and of calculators."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from ase import Atoms

from mlff_exp.engines import Engine
from mlff_exp.measure import (
    LARGEST_GRADIENT_ERROR_EV_PER_ANG,
    circulation_error,
    energy_rounding,
    gradient_errors,
    loop_work,
)
from mlff_exp.results import CONSERVATIVE, NON_CONSERVATIVE
from mlff_exp.structures import collate
from mlff_exp.tasks.gradient import CIRCULATION, DIFFERENCES

DISPLACEMENT_ANG = 0.05
N_DRAWN = 4  # loops and directions in the space of all coordinates; nearly every direction has a part of an error
SKIN_ANG = 1.0  # atoms move by some tenths of an Å
LIMITS = {DIFFERENCES: LARGEST_GRADIENT_ERROR_EV_PER_ANG, CIRCULATION: 2e-5}  # as in gate=strict


def check_own_forces(engine: Engine, atoms: Atoms, seed: int) -> tuple[dict[str, float], str]:
    """Compare forces with differences of the energy, and measure their work around closed loops.

    Args:
        engine: gives energies and forces; in FP64 if it is one of ours.
        atoms: a structure, which is displaced at random.
        seed: random seed of displacement, directions and loops.

    Returns:
        The metrics that are finite, and the text for the tag of a result: what `results.CONSERVATIVE` says, or
        ``non-conservative`` with the reason.
    """
    rng = np.random.default_rng(seed)
    moved = atoms.copy()
    moved.positions += rng.normal(scale=DISPLACEMENT_ANG, size=moved.positions.shape)
    batch = collate([moved] * N_DRAWN, engine.cutoff, near=engine.shorter_cutoffs, skin=SKIN_ANG, device=engine.device)
    drawn = torch.from_numpy(rng.normal(size=tuple(batch.positions.shape))).to(batch.positions.device)
    moves = batch.per_system(drawn * batch.is_atom.unsqueeze(-1))
    directions = (moves / moves.square().sum(dim=(1, 2), keepdim=True).sqrt()).flatten(0, 1)
    rounding_ev = energy_rounding(engine, batch, directions)
    centred = collate(
        [atoms] * N_DRAWN, engine.cutoff, near=engine.shorter_cutoffs, skin=SKIN_ANG, device=engine.device
    )
    metrics = {
        DIFFERENCES: float(gradient_errors(engine, batch, directions, rounding_ev).max()),
        CIRCULATION: circulation_error(*loop_work(engine, centred, rng)),
    }
    return {name: value for name, value in metrics.items() if math.isfinite(value)}, _said(metrics)


def _said(metrics: Mapping[str, float]) -> str:
    exceeded = [
        f"{name} is {value:.2g}, allowed is ≤ {LIMITS[name]:.2g}"
        for name, value in metrics.items()
        if value > LIMITS[name]
    ]
    return f"{NON_CONSERVATIVE}: {'; '.join(exceeded)}" if exceeded else CONSERVATIVE
