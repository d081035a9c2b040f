"""The precision of the network's arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from mlff_exp.config.checks import choose
from mlff_exp.config.device import is_cuda
from mlff_exp.config.words import PRECISIONS, Precision

CUDA_PRECISIONS: tuple[Precision, ...] = ("tf32",)  # those that only a CUDA GPU has


@dataclass
class PrecisionConfig:
    """The precision of the network; geometry, sums and the integrator stay FP32 or FP64."""

    name: str = MISSING

    def __post_init__(self) -> None:
        choose("precision.name", self.name, PRECISIONS)


def low_precision(device: str) -> Precision:
    """Return the 16-bit precision that suits a device; ``${low_precision:${device}}`` in configurations."""
    return "fp16_autocast" if is_cuda(device) else "bf16_autocast"
