"""Plain PyTorch, the reference with which every other engine is compared."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mlff_exp.config import Precision
from mlff_exp.engines.prediction import Prediction
from mlff_exp.engines.protocol import ForceField
from mlff_exp.models import has_own_forces, shorter_cutoffs, stress_of_gradients
from mlff_exp.structures import AtomicBatch

AUTOCAST_DTYPES: dict[Precision, torch.dtype] = {"fp16_autocast": torch.float16, "bf16_autocast": torch.bfloat16}


def energy_and_forces(
    model: ForceField, batch: AtomicBatch, precision: Precision, *, differentiable: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute E [n_systems] eV and F = −∂E/∂x [n_rows, 3] eV/Å, both FP64; a model with forces of its own gives F.

    Args:
        model: computes the energy.
        batch: on the device of the model.
        precision: selects autocast; without autocast the dtype of the weights decides.
        differentiable: whether gradients flow through both results, as the loss of a training needs.
    """
    if has_own_forces(model):
        returned: Any = model
        with autocast(precision, batch.positions.device):
            energy, forces = returned(batch)
        return energy.double(), forces.double()
    positions = batch.positions.detach().requires_grad_(True)
    with torch.enable_grad(), autocast(precision, positions.device):
        energy = model(batch.with_positions(positions))
        (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=differentiable)
    return energy if differentiable else energy.detach(), -gradient


def energy_forces_and_stress(
    model: ForceField, batch: AtomicBatch, precision: Precision
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute E [n_systems] eV, F [n_rows, 3] eV/Å and σ [n_systems, 3, 3] eV/Å³, all FP64, from one graph.

    Energies and forces have the bits of `energy_and_forces`.

    Args:
        model: computes the energy.
        batch: systems that are periodic in all three directions, on the device of the model.
        precision: selects autocast; without autocast the dtype of the weights decides.
    """
    positions, cell = (tensor.detach().requires_grad_(True) for tensor in (batch.positions, batch.cell))
    with torch.enable_grad(), autocast(precision, positions.device):
        energy = model(replace(batch, positions=positions, cell=cell))
        by_positions, by_cell = torch.autograd.grad(energy.sum(), (positions, cell))
    return energy.detach(), -by_positions, stress_of_gradients(batch, by_positions, by_cell)


class EagerEngine:
    """Plain PyTorch, kernel by kernel.

    Args:
        model: frozen, on the device.
        precision: precision of the network.
        device: device of the batches.
        stress: whether to compute the stress of batches that have one.
    """

    name = "eager"
    uses_cuda_graphs = False
    capturable = None
    compiled_graphs = 0
    compile_s = 0.0

    def __init__(self, model: ForceField, precision: Precision, device: torch.device, *, stress: bool = False) -> None:
        self.model, self.precision, self.device, self.stress = model, precision, device, stress
        self.cutoff, self.shorter_cutoffs = model.cutoff, shorter_cutoffs(model)
        self.evaluations = 0

    def has_graph(self, batch: AtomicBatch) -> bool:
        """Return True: nothing is compiled."""
        return True

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Compute energy, forces and, if asked for, stress."""
        self.evaluations += batch.n_systems
        with matmul_precision(self.precision):
            if self.stress and batch.fully_periodic:
                return Prediction(*energy_forces_and_stress(self.model, batch, self.precision))
            return Prediction(*energy_and_forces(self.model, batch, self.precision))


@contextlib.contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """Use TF32 for FP32 products on CUDA if the precision says so, else IEEE; restore the setting afterwards."""
    # Not torch.backends.cuda.matmul: Inductor reads the older of torch's two interfaces, and both must agree.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """Enable autocast for a precision that uses it."""
    dtype = AUTOCAST_DTYPES.get(precision)
    if dtype is None:
        yield
    else:
        with torch.autocast(device.type, dtype=dtype, cache_enabled=False):
            yield
