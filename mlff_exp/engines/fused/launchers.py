"""Buffers and launches of the kernels for one shape of batch."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import triton.language as tl
from torch import Tensor

from mlff_exp.config import Precision
from mlff_exp.engines.fused.kernels import (
    ATOMS,
    COMMON_PLANES,
    FORCES,
    GATE,
    GATE_BACK,
    GATES_BACK,
    GEOMETRY,
    HIDDEN_OF_GATES,
    HIDDEN_OF_PHI,
    KEPT_PLANES,
    LAYER_PLANES,
    LOW_PLANES,
    MESSAGE,
    MESSAGE_BACK,
    MIX,
    MOLECULE_PLANES,
    PHI_BACK,
    PHI_OF_HIDDEN,
    READOUT,
    SCALARS_BACK,
    SHARED_V,
    VECTORS_BACK,
    molecule_kernel,
    stage_kernel,
)
from mlff_exp.engines.fused.shapes import MoleculeShape, StagedShape
from mlff_exp.engines.fused.weights import Weights
from mlff_exp.engines.prediction import EngineError, Prediction
from mlff_exp.structures import AtomicBatch

MAX_PROGRAMS = 65_535  # along one axis of a launch, by CUDA's limit
PRODUCTS: dict[Precision, tuple[torch.dtype, Any, str]] = {
    # Three products of TF32 parts are as accurate as one FP32 product, and run on tensor cores.
    "fp32": (torch.float32, tl.float32, "tf32x3"),
    "tf32": (torch.float32, tl.float32, "tf32"),
    "fp16_autocast": (torch.float16, tl.float16, "tf32"),
}


class Launcher(Protocol):
    """Buffers and launches for one shape of batch."""

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Compute energy and forces."""


def _outputs(batch: AtomicBatch) -> tuple[Tensor, Tensor]:
    """Return uninitialised tensors for energies and forces."""
    device = batch.positions.device
    energy = torch.empty(batch.n_systems, dtype=torch.float64, device=device)
    return energy, torch.empty(len(batch.positions), 3, dtype=torch.float64, device=device)


class MoleculeLauncher:
    """Buffers for one launch per evaluation."""

    def __init__(self, weights: Weights, precision: Precision, shape: MoleculeShape, batch: AtomicBatch) -> None:
        low, product, arithmetic = PRODUCTS[precision]
        layers, features, slots = weights.n_layers, weights.features, ATOMS.value
        self._weights = weights
        self._programs = programs = batch.n_systems
        warps = min(shape.warps, features // 8)  # warps that share the columns of a product

        def zeros(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(programs, *sizes, device=batch.positions.device, dtype=dtype)

        self._buffers = (
            zeros(layers, MOLECULE_PLANES.value, slots, features, dtype=low),  # kept
            zeros(SHARED_V.value + 3 * layers, slots, features),  # shared
            zeros(slots, dtype=torch.int32),  # element
            zeros(slots, 4, slots),  # unit
            zeros(slots, slots),  # push
            zeros(slots, dtype=torch.float64),  # repelled
            zeros(slots, slots, weights.rbf, dtype=low),  # basis
            zeros(slots, slots, weights.rbf, dtype=low),  # slope
            zeros(warps, slots, slots, 4),  # partial
        )
        self._options: dict[str, Any] = {
            "LAYERS": layers, "F": features, "HALF": weights.half, "RBF": weights.rbf, "N_RBF": weights.n_rbf,
            "WARPS": warps, "LOW": product, "IP": arithmetic,
            "num_warps": shape.warps, "maxnreg": shape.registers,
        }  # fmt: skip
        self._unused = torch.empty(1, device=batch.positions.device, dtype=torch.float64)
        self.has_moved = False

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Compute energy and forces."""
        outputs = _outputs(batch)
        self._launch(batch, *outputs, self._unused, self._unused, self._unused, 1, moves=False)
        return Prediction(*outputs)

    def integrate(
        self, batch: AtomicBatch, velocities: Tensor, last: Prediction, masses: Tensor, timestep: Tensor, n_steps: int
    ) -> None:
        """Integrate steps as `FusedEngine.integrate` does."""
        self._launch(batch, last.energy, last.forces, velocities, masses, timestep, n_steps, moves=True)
        self.has_moved = True

    def _launch(self, batch: AtomicBatch, *arguments: Tensor | int, moves: bool) -> None:
        molecule_kernel[(self._programs,)](
            batch.positions, batch.atomic_numbers, *self._weights.tensors, *self._buffers, *arguments,
            batch.n_systems, batch.n_slots, self._weights.cutoff, self._weights.out_bias,
            MOVES=moves, **self._options,
        )  # fmt: skip


class StagedLauncher:
    """Buffers and launches for each stage of each layer."""

    def __init__(self, weights: Weights, precision: Precision, shape: StagedShape, batch: AtomicBatch) -> None:
        self._weights, self._shape = weights, shape
        low, product, arithmetic = PRODUCTS[precision]
        layers = weights.n_layers
        self._n_systems, self._n_slots = batch.n_systems, batch.n_slots
        device, features, slots = batch.positions.device, weights.features, shape.slots
        self._groups = -(-batch.n_systems // shape.molecules)
        rows = shape.molecules * slots
        self._rows = self._groups * rows
        if self._rows // 16 > MAX_PROGRAMS:
            raise EngineError(
                f"engine 'fused' takes up to {MAX_PROGRAMS * 16 // slots:,} molecules of this size at once, and this "
                f"batch has {batch.n_systems:,}: split it"
            )
        slices = features // shape.pair_columns

        def zeros(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*sizes, device=device, dtype=dtype)

        self._buffers = (
            zeros(COMMON_PLANES.value + layers * LAYER_PLANES.value, self._rows, features),  # work
            zeros(LOW_PLANES.value + layers * KEPT_PLANES.value, self._rows, features, dtype=low),  # low
            zeros(self._rows, dtype=torch.int32),  # element
            zeros(self._rows, 4, slots),  # unit
            zeros(self._rows, slots),  # push
            zeros(self._rows, dtype=torch.float64),  # repelled
            zeros(self._rows, slots, weights.rbf, dtype=low),  # basis
            zeros(self._rows, slots, weights.rbf, dtype=low),  # slope
            zeros(self._rows),  # atomic
            zeros(slices, self._rows, slots, 4),  # partial
        )
        # Each part of a sum is at least as large as the tile of a tensor core.
        split = min(shape.warps, features // 16) if shape.split else 1
        self._options: dict[str, Any] = {
            "LAYERS": layers, "F": features, "HALF": weights.half, "SLOTS": slots, "ROWS": rows,
            "RBF": weights.rbf, "N_RBF": weights.n_rbf, "NF": shape.columns, "SPLIT": split,
            "PAIR_NF": shape.pair_columns, "PARTNERS": shape.pair_warps,
            "JOINS": shape.joins, "LOW": product, "IP": arithmetic,
        }  # fmt: skip
        self._order = _stages(layers, shape.joins)
        early = shape.early and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
        self._early = {"EARLY": True, "launch_pdl": True} if early else {"EARLY": False}

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Compute energy and forces."""
        weights, shape, outputs = self._weights, self._shape, _outputs(batch)
        arguments = (
            batch.positions, batch.atomic_numbers, *weights.tensors, *self._buffers, *outputs,
            self._n_systems, self._n_slots, self._rows * weights.features, weights.cutoff, weights.out_bias,
        )  # fmt: skip
        n_layers, slices = weights.n_layers, weights.features // shape.columns
        for stage, layer in self._order:
            parts = _parts(stage, layer == n_layers - 1, layer == 0)
            grid, warps = (slices, self._groups, parts), shape.warps
            if stage in (MESSAGE.value, MESSAGE_BACK.value):
                grid, warps = (weights.features // shape.pair_columns, self._rows // 16, parts), shape.pair_warps
            elif stage == GEOMETRY.value:
                grid = (shape.slots, self._rows // shape.slots, 1)
            elif stage == FORCES.value:
                grid, warps = (self._n_slots, self._n_systems, 1), 2
            stage_kernel[grid](*arguments, STAGE=stage, LAYER=layer, num_warps=warps, **self._options, **self._early)
        return Prediction(*outputs)


def _parts(stage: int, last: bool, first: bool) -> int:
    """Return how many programs share a slice of a stage; the first and the last layer need fewer."""
    if stage == VECTORS_BACK.value:
        return 3
    both = stage == GATE_BACK.value or (stage == GATE.value and not last) or (stage == MESSAGE_BACK.value and not first)
    return 2 if both else 1


def _stages(n_layers: int, joins: bool) -> list[tuple[int, int]]:
    """Return (stage, layer) in the order of an evaluation."""
    found = [(GEOMETRY.value, 0)]
    for layer in range(n_layers):
        if layer > 0:
            found.append((HIDDEN_OF_PHI.value, layer))
        if layer > 0 and not joins:
            found.append((PHI_OF_HIDDEN.value, layer))
        found += [(stage.value, layer) for stage in (MESSAGE, MIX, HIDDEN_OF_GATES, GATE)]
    found.append((READOUT.value, 0))
    for layer in reversed(range(n_layers)):
        found += [(GATES_BACK.value, layer), (GATE_BACK.value, layer)]
        if not joins:
            found.append((VECTORS_BACK.value, layer))
        found.append((MESSAGE_BACK.value, layer))
        if layer > 0:
            found += [(PHI_BACK.value, layer), (SCALARS_BACK.value, layer)]
    return [*found, (FORCES.value, 0)]
