"""The result of every engine, and its error."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


class EngineError(RuntimeError):
    """The engine or precision that was asked for cannot run here, or did not run as asked."""


@dataclass(frozen=True)
class Prediction:
    """Energies, forces and, if it was asked for, stress of a batch.

    Attributes:
        energy: [n_systems] eV, FP64.
        forces: [n_rows, 3] eV/Å, FP64; exactly zero for padding.
        stress: [n_systems, 3, 3] eV/Å³, FP64, symmetric, positive under tension as in ASE; zero for systems that are
            padding. None if the engine was made without stress, or if a system of the batch is not periodic in all
            three directions: a batch of crystals and molecules has none.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor | None = None
