"""The precision of the network's arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from mlff_exp.config.checks import choose
from mlff_exp.config.words import PRECISIONS


@dataclass
class PrecisionConfig:
    """Arithmetic of the network; geometry, sums and the integrator stay FP32 or FP64."""

    name: str = MISSING

    def __post_init__(self) -> None:
        choose("precision.name", self.name, PRECISIONS)
