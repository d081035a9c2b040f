"""Plain PyTorch: the reference that every other engine is compared with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from mlff_exp.config import Precision
from mlff_exp.engines.prediction import Prediction
from mlff_exp.engines.protocol import ForceField
from mlff_exp.structures import AtomicBatch

AUTOCAST_DTYPES: dict[Precision, torch.dtype] = {"fp16_autocast": torch.float16, "bf16_autocast": torch.bfloat16}


def energy_and_forces(
    model: ForceField, batch: AtomicBatch, precision: Precision, *, differentiable: bool = False
) -> tuple[Tensor, Tensor]:
    """E [n_systems] eV and F = −∂E/∂x [n_rows, 3] eV/Å, both FP64.

    Args:
        model: gives the energy.
        batch: on the device of the model.
        precision: what autocast does; without autocast the weights decide.
        differentiable: whether gradients go through both, as the loss of a training needs.
    """
    positions = batch.positions.detach().requires_grad_(True)
    with torch.enable_grad(), autocast(precision, positions.device):
        energy = model(batch.with_positions(positions))
        (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=differentiable)
    return energy if differentiable else energy.detach(), -gradient


class EagerEngine:
    """Plain PyTorch, kernel by kernel: the reference every other engine is compared with."""

    name = "eager"
    uses_cuda_graphs = False
    capturable = None
    compiled_graphs = 0
    compile_s = 0.0

    def __init__(self, model: ForceField, precision: Precision, device: torch.device) -> None:
        self.model, self.precision, self.device = model, precision, device
        self.cutoff, self.evaluations = model.cutoff, 0

    def has_graph(self, batch: AtomicBatch) -> bool:
        """Nothing is ever compiled."""
        return True

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Energy and forces."""
        self.evaluations += batch.n_systems
        with matmul_precision(self.precision):
            return Prediction(*energy_and_forces(self.model, batch, self.precision))


@contextlib.contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """TF32 for FP32 products on CUDA if the precision says so, IEEE otherwise; restored afterwards."""
    # Not through torch.backends.cuda.matmul: Inductor reads the older of its two interfaces, which must agree.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """Autocast as the precision says; nothing for a precision without it."""
    dtype = AUTOCAST_DTYPES.get(precision)
    if dtype is None:
        yield
    else:
        with torch.autocast(device.type, dtype=dtype, cache_enabled=False):
            yield
