"""The result of every engine, and its error."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


class EngineError(RuntimeError):
    """The engine or precision that was asked for cannot run here, or did not run as asked."""


@dataclass(frozen=True)
class Prediction:
    """Energies and forces of a batch.

    Attributes:
        energy: [n_systems] eV, FP64.
        forces: [n_rows, 3] eV/Å, FP64; exactly zero for padding.
    """

    energy: Tensor
    forces: Tensor
