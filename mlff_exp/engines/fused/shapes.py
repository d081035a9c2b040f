"""How a batch is distributed over the GPU: the shapes of launches, and which one suits a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

from mlff_exp.config import Precision
from mlff_exp.engines.fused.kernels import ATOMS
from mlff_exp.engines.prediction import EngineError
from mlff_exp.structures import ALL_PAIRS_MAX_ATOMS

FEW_MOLECULES = 32
FOR_EARLY = 4  # up to this many molecules, a kernel leaves multiprocessors free for the next kernel
# Shared memory that the compiler reports; some GPUs have less.
JOINED_BYTES = 107_776  # joined programs of 16 features in FP32; the other shapes take less than 99 kB
MOLECULE_BYTES = 167_936  # a program of 128 features with all weights of a product


@dataclass(frozen=True)
class StagedShape:
    """The distribution of a batch over the GPU when each stage of each layer is a launch.

    Attributes:
        slots: rows of one molecule; a power of two.
        molecules: molecules that share a program.
        columns: features of one program.
        warps: warps of one program.
        split: whether each warp sums a part of a product.
        pair_columns: features of one program of messages.
        pair_warps: warps of one program of messages; each processes one partner at a time.
        early: whether a kernel starts before the previous one has ended, on GPUs that can do so (Hopper).
    """

    slots: int
    molecules: int
    columns: int
    warps: int
    split: bool
    pair_columns: int
    pair_warps: int
    early: bool

    @property
    def joins(self) -> bool:
        """Whether a program of messages computes its own inputs, because both stages have the same features."""
        return self.columns == self.pair_columns and self.molecules == 1


@dataclass(frozen=True)
class MoleculeShape:
    """One launch with a program for each molecule of up to 16 atoms, in FP16: other precisions need more registers.

    Attributes:
        warps: warps of a program.
        registers: largest number of registers of a thread.
    """

    warps: int
    registers: int


Shape = StagedShape | MoleculeShape


def shape_for(n_systems: int, n_slots: int, n_features: int, precision: Precision, device: torch.device) -> Shape:
    """Choose how a batch is distributed over the GPU.

    For few molecules each layer is spread over the GPU. For more there is a program for each molecule, as long as there
    is a multiprocessor for each. For many, several molecules share a program and fill its tiles. The numbers follow
    timings on an H100 (docs/fused.md).

    Raises:
        EngineError: the batch has more rows per molecule than the kernels hold.
    """
    if n_slots > ALL_PAIRS_MAX_ATOMS:
        raise EngineError(
            f"engine 'fused' takes molecules of up to {ALL_PAIRS_MAX_ATOMS} atoms; the largest of this batch has "
            f"{n_slots}: use engine 'cuda_graph'"
        )
    slots, half = max(16, triton.next_power_of_2(n_slots)), precision == "fp16_autocast"
    if n_systems <= FEW_MOLECULES:
        early, split = n_systems <= FOR_EARLY, slots <= 32 and not half
        joins = slots <= (32 if half else 16) and (half or early or _has_shared_memory(device, JOINED_BYTES))
        if not joins:
            return StagedShape(slots, 1, 16, 4, split, 8, 4, early)
        columns = (16 if early else 32) if half else (8 if early else 16)
        return StagedShape(slots, 1, columns, 4, split, columns, 4, early)
    fits = slots == ATOMS.value and n_features <= 128 and _has_shared_memory(device, MOLECULE_BYTES)
    if half and fits and n_systems <= _multiprocessors(device):
        return MoleculeShape(warps=8, registers=255)
    columns = 32 if half else 16
    # Where one molecule fills a program, messages are half as wide as products, so that they are not joined.
    return StagedShape(slots, 64 // slots, columns, 4, False, columns if slots < 64 else columns // 2, 1, False)


def _multiprocessors(device: torch.device) -> int:
    """Return how many programs with much shared memory run on a GPU at the same time."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 0


def _has_shared_memory(device: torch.device, n_bytes: int) -> bool:
    """Return whether a program may use this much shared memory; the interpreter has no limit."""
    if device.type != "cuda":
        return True
    return bool(torch.cuda.get_device_properties(device).shared_memory_per_block_optin >= n_bytes)  # type: ignore[attr-defined]
