"""Evaluate new weights on a few atoms, because finite numbers can still be no force field."""

from __future__ import annotations

import copy
import math

import torch
from ase import Atoms
from torch import Tensor

from mlff_exp.models.painn import PaiNN
from mlff_exp.models.predecessor import PredecessorPaiNN
from mlff_exp.structures import AtomicBatch, collate

# Å, no two distances alike; the largest is 1.6, so it is scaled down for a shorter cutoff.
PLACES = ((0.0, 0.0, 0.0), (1.0, 0.1, 0.0), (-0.3, 1.1, 0.2), (0.2, -0.4, 0.9))
LONGEST_ANG = 2.0
LARGEST_WEIGHT = 1e6  # training leaves weights below 100; in larger ones energies of atoms lose all their digits
WEAKEST_EV_PER_ANG, STRONGEST_EV_PER_ANG = 1e-9, 1e9


def refuse_no_force_field(model: PaiNN | PredecessorPaiNN) -> None:
    """Refuse weights that are too large, or with which atoms feel no force, or an impossibly large one.

    Args:
        model: FP32 weights, on the CPU.

    Raises:
        ValueError: the weights are one of these. The message says which.
    """
    for name, weight in model.named_parameters():
        if (largest := float(weight.abs().max())) > LARGEST_WEIGHT:
            raise ValueError(
                f"its weights are no force field: {name} holds {largest:.3g}, more than {LARGEST_WEIGHT:g}"
            )
    symbols = [model.elements[index % len(model.elements)] for index in range(len(PLACES))]
    atoms = Atoms(symbols, PLACES)
    atoms.positions *= min(1.0, model.cutoff / LONGEST_ANG)
    batch = collate([atoms], model.cutoff)
    # Parts of the model without weights, such as the repulsion of nuclei, act with weights of zero too.
    without = copy.deepcopy(model)
    with torch.no_grad():
        for weight in without.parameters():
            weight.zero_()
    gradient = _gradient(model, batch)
    learned = gradient - _gradient(without, batch)
    strongest, shown = float(gradient.norm(dim=-1).max().nan_to_num(math.inf)), " ".join(symbols)
    if strongest < math.inf and float(learned.norm(dim=-1).max()) < WEAKEST_EV_PER_ANG:
        raise ValueError(f"its weights are no force field: {shown} at the distance of a bond feel no force from them")
    if strongest > STRONGEST_EV_PER_ANG:
        raise ValueError(
            f"its weights are no force field: the force on {shown} at the distance of a bond is {strongest:.3g} eV/Å, "
            f"more than {STRONGEST_EV_PER_ANG:g}"
        )


def _gradient(model: PaiNN | PredecessorPaiNN, batch: AtomicBatch) -> Tensor:
    """Return the gradient of the energy, [n_rows, 3] eV/Å; all NaN if the energy is infinite or NaN."""
    positions = batch.positions.clone().requires_grad_(True)
    energy = model(batch.with_positions(positions)).sum()
    (gradient,) = torch.autograd.grad(energy, positions)
    return gradient if energy.isfinite() else torch.full_like(gradient, math.nan)
