"""Stress of periodic systems from the derivative of the energy with respect to a homogeneous strain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from mlff_exp.engines.protocol import ForceField
from mlff_exp.structures import AtomicBatch


def virial_stress(model: ForceField, batch: AtomicBatch) -> npt.NDArray[np.float64]:
    """Compute σ = (1/V) ∂E/∂ε at ε = 0, where ε strains positions and cell; eager, in the precision of the weights.

    Args:
        model: a force field.
        batch: systems that are periodic in all three directions.

    Returns:
        [n_systems, 3, 3] eV/Å³, symmetric, positive under tension as in ASE.

    Raises:
        ValueError: a system is not periodic in all three directions, and has no volume.
    """
    if not batch.pbc.all():
        raise ValueError("stress needs a system that is periodic in all three directions")
    with torch.enable_grad():
        strain = torch.zeros_like(batch.cell).requires_grad_(True)
        symmetric = 0.5 * (strain + strain.transpose(1, 2))
        deformed = batch.per_system(batch.positions)
        strained = replace(
            batch,
            positions=(deformed + torch.bmm(deformed, symmetric)).flatten(0, 1),
            cell=batch.cell + torch.bmm(batch.cell, symmetric),
        )
        (gradient,) = torch.autograd.grad(model(strained).sum(), strain)
    volumes = torch.linalg.det(batch.cell).abs()
    stress: npt.NDArray[np.float64] = (gradient / volumes[:, None, None]).cpu().numpy()
    return stress
