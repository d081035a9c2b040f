"""The stress of periodic systems from the gradients of the energy."""

from __future__ import annotations

import torch
from torch import Tensor

from mlff_exp.structures import AtomicBatch


def stress_of_gradients(batch: AtomicBatch, by_positions: Tensor, by_cell: Tensor) -> Tensor:
    """Compute σ = (1/V) ∂E/∂ε at ε = 0, where ε is a symmetric strain of positions and cell.

    A strain moves atoms x to x (1 + ε) and cell vectors c to c (1 + ε), so that ∂E/∂ε = Σ x ⊗ ∂E/∂x + Σ c ⊗ ∂E/∂c.
    Where the energy depends on vectors v between atoms and images only, this equals the virial Σ v ⊗ ∂E/∂v. Both
    gradients come from one pass backward: there is no second graph, and the forces keep their bits.

    Args:
        batch: systems that are periodic in all three directions; systems without atoms are padding.
        by_positions: ∂E/∂x, [n_rows, 3] eV/Å; zero for padding.
        by_cell: ∂E/∂c, [n_systems, 3, 3] eV/Å.

    Returns:
        [n_systems, 3, 3] eV/Å³, symmetric, positive under tension as in ASE; zero for padding.
    """
    positions, gradient = batch.per_system(batch.positions), batch.per_system(by_positions)
    # Sums of products, which a compiler fuses with what comes before.
    virial = (positions.unsqueeze(3) * gradient.unsqueeze(2)).sum(dim=1)
    virial = virial + (batch.cell.unsqueeze(3) * by_cell.unsqueeze(2)).sum(dim=1)
    volumes = batch.volumes
    volumes = torch.where(volumes > 0, volumes, 1.0)  # padding has no cell
    return 0.5 * (virial + virial.transpose(1, 2)) / volumes[:, None, None]
