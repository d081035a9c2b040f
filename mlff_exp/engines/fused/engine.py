"""The fused engine: PaiNN's energy and forces in Triton kernels written by hand (`kernels.py`, docs/fused.md)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.nn import functional

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
from mlff_exp.engines.prediction import EngineError, Prediction
from mlff_exp.models import Message, PaiNN, Update
from mlff_exp.structures import ALL_PAIRS_MAX_ATOMS, AtomicBatch


def _parts(stage: int, last: bool, first: bool) -> int:
    """Return how many programs share a slice of a stage; the first and the last layer need fewer."""
    if stage == VECTORS_BACK.value:
        return 3
    both = stage == GATE_BACK.value or (stage == GATE.value and not last) or (stage == MESSAGE_BACK.value and not first)
    return 2 if both else 1


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


FEW_MOLECULES = 32
MAX_PROGRAMS = 65_535  # along one axis of a launch, by CUDA's limit
FOR_EARLY = 4  # up to this many molecules, a kernel leaves multiprocessors free for the next kernel
# Shared memory that the compiler reports; some GPUs have less.
JOINED_BYTES = 107_776  # joined programs of 16 features in FP32; the other shapes take less than 99 kB
MOLECULE_BYTES = 167_936  # a program of 128 features with all weights of a product


def _multiprocessors(device: torch.device) -> int:
    """Return how many programs with much shared memory run on a GPU at the same time."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 0


def _has_shared_memory(device: torch.device, n_bytes: int) -> bool:
    """Return whether a program may use this much shared memory; the interpreter has no limit."""
    if device.type != "cuda":
        return True
    return bool(torch.cuda.get_device_properties(device).shared_memory_per_block_optin >= n_bytes)  # type: ignore[attr-defined]


PRODUCTS: dict[Precision, tuple[torch.dtype, Any, str]] = {
    # Three products of TF32 parts are as accurate as one FP32 product, and run on tensor cores.
    "fp32": (torch.float32, tl.float32, "tf32x3"),
    "tf32": (torch.float32, tl.float32, "tf32"),
    "fp16_autocast": (torch.float16, tl.float16, "tf32"),
}


class FusedEngine:
    """Energy and forces in a few dozen kernels, without autograd; `CudaGraphEngine` captures it.

    Args:
        model: frozen, on the device.
        precision: precision of the products.
        device: device of the batches.
        shape: a shape for every batch, instead of the one that `shape_for` chooses.

    Raises:
        EngineError: the engine does not have this precision.
    """

    name = "fused"
    shorter_cutoffs = ()
    uses_cuda_graphs = False
    capturable = None

    def __init__(self, model: PaiNN, precision: Precision, device: torch.device, shape: Shape | None = None) -> None:
        if precision not in PRODUCTS:
            raise EngineError(f"engine 'fused' has no precision {precision!r}: use one of {', '.join(PRODUCTS)}")
        self.precision, self.device, self.cutoff = precision, device, model.architecture.cutoff
        self.compile_s, self.evaluations = 0.0, 0
        self._shape = shape
        self._weights = _Weights.of(model, PRODUCTS[precision][0], device)
        self._launchers: dict[tuple[int, int], _Launcher] = {}

    @property
    def compiled_graphs(self) -> int:
        """Number of shapes of batch so far, each with its own kernels."""
        return len(self._launchers)

    def has_graph(self, batch: AtomicBatch) -> bool:
        """Return whether a batch of this shape has run."""
        return (batch.n_systems, batch.n_slots) in self._launchers

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Compute energy and forces.

        Raises:
            EngineError: a system is periodic, or the batch has more atoms or molecules than the engine or its shape
                supports.
        """
        self.evaluations += batch.n_systems
        known = self._launchers.get((batch.n_systems, batch.n_slots))
        if known is not None:
            return known(batch)
        started = time.perf_counter()
        prediction = self._launcher(batch)(batch)
        self.compile_s += time.perf_counter() - started
        return prediction

    def can_integrate(self, batch: AtomicBatch) -> bool:
        """Return whether `integrate` accepts a batch: each program must compute molecules of its own."""
        return batch.shifts is None and isinstance(self.shape_of(batch), MoleculeShape)

    def integrate(
        self, batch: AtomicBatch, velocities: Tensor, last: Prediction, masses: Tensor, timestep: Tensor, n_steps: int
    ) -> None:
        """Integrate steps of velocity Verlet in one launch, in place.

        Args:
            batch: a batch that `can_integrate` accepts; its positions are changed.
            velocities: [n_rows, 3] FP64, changed.
            last: prediction at the positions; it is replaced by the one at the new positions.
            masses: [n_rows, 1] FP64.
            timestep: one number, FP64. Its unit follows from those of forces, masses and positions.
            n_steps: at least one.
        """
        launcher = self._launcher(batch)
        assert isinstance(launcher, _MoleculeLauncher), "can_integrate is true"
        first, started = not launcher.has_moved, time.perf_counter()
        launcher.integrate(batch, velocities, last, masses, timestep, n_steps)
        if first:
            self.compile_s += time.perf_counter() - started
        self.evaluations += n_steps * batch.n_systems

    def shape_of(self, batch: AtomicBatch) -> Shape:
        """Return how a batch is distributed over the GPU."""
        return self._shape or shape_for(
            batch.n_systems, batch.n_slots, self._weights.features, self.precision, self.device
        )

    def _launcher(self, batch: AtomicBatch) -> _Launcher:
        if batch.shifts is not None:
            raise EngineError("engine 'fused' takes no periodic systems: use engine 'cuda_graph'")
        key = batch.n_systems, batch.n_slots
        if key not in self._launchers:
            shape = self.shape_of(batch)
            slots = shape.slots if isinstance(shape, StagedShape) else ATOMS.value
            if slots < batch.n_slots:
                raise EngineError(f"engine 'fused': a shape of {slots} slots can't hold {batch.n_slots} atoms")
            if isinstance(shape, StagedShape):
                self._launchers[key] = _StagedLauncher(self._weights, self.precision, shape, batch)
            else:
                self._launchers[key] = _MoleculeLauncher(self._weights, self.precision, shape, batch)
        return self._launchers[key]


@dataclass(frozen=True)
class _Weights:
    """Weights in the layout of the kernels: operands of products as [in, out], features padded to a power of two.

    Attributes:
        tensors: ``weights``, ``offsets`` and the tables by atomic number.
    """

    features: int
    half: int
    n_rbf: int
    rbf: int
    n_layers: int
    cutoff: float
    tensors: tuple[Tensor, ...]
    out_bias: float

    @staticmethod
    def of(model: PaiNN, low: torch.dtype, device: torch.device) -> _Weights:
        n, n_rbf = model.architecture.n_features, model.architecture.n_rbf
        features, rbf = max(32, triton.next_power_of_2(n)), max(16, triton.next_power_of_2(n_rbf + 1))
        half = max(16, triton.next_power_of_2(n // 2))

        def padded(values: Tensor, *sizes: int) -> Tensor:
            """Pad the last axes with zeros."""
            missing = [size - there for size, there in zip(sizes, values.shape[-len(sizes) :], strict=True)]
            pad = [number for count in reversed(missing) for number in (0, count)]
            return functional.pad(values.detach().float(), pad).to(device).contiguous()

        operands, vectors = [], []
        for module, other in zip(model.messages, model.updates, strict=True):
            message, update = cast(Message, module), cast(Update, other)
            first, second = _linear(message.scalar_net, 0), _linear(message.scalar_net, 2)
            hidden, gates = _linear(update.scalar_net, 0), _linear(update.scalar_net, 2)
            filters = torch.cat([message.filter_net.weight, message.filter_net.bias.unsqueeze(-1)], dim=-1)
            for parts in (
                first.weight.view(1, n, n),
                second.weight.view(3, n, n),
                update.mix.weight.view(2, n, n),
                hidden.weight.view(n, 2, n).transpose(0, 1),
                gates.weight.view(3, n, n),
            ):  # [parts, out, in]: forward as [in, out], backward as they are
                operands += [padded(parts.transpose(1, 2), features, features), padded(parts, features, features)]
            operands.append(padded(filters.view(3, n, n_rbf + 1).transpose(1, 2), rbf, features))
            vectors += [
                padded(bias.view(-1, n), features) for bias in (first.bias, second.bias, hidden.bias, gates.bias)
            ]
        with torch.no_grad():
            phi0 = cast(Message, model.messages[0]).scalar_net(model.embedding.weight).view(-1, 3, n)
        into, out = _linear(model.readout, 0), _linear(model.readout, 2)
        operands += [padded(into.weight.t(), features, half), padded(into.weight, half, features)]
        vectors += [padded(into.bias, half), padded(out.weight.view(-1), half)]
        element = model.element_index  # the tables below are by atomic number, so that kernels do not need this index
        return _Weights(
            features=features,
            half=half,
            n_rbf=n_rbf,
            rbf=rbf,
            n_layers=model.architecture.n_interactions,
            cutoff=model.architecture.cutoff,
            tensors=(
                torch.cat([values.flatten() for values in operands]).to(low),
                torch.cat([values.flatten() for values in vectors]),
                model.covalent_radius[element].float().to(device),
                model.nuclear_charge[element].float().to(device),
                padded(model.embedding.weight[element], features),
                padded(phi0[element], features),
                model.reference_energies[element].to(device),
            ),
            out_bias=float(out.bias.detach()),
        )


def _linear(layers: nn.Sequential, index: int) -> nn.Linear:
    return cast(nn.Linear, layers[index])


class _Launcher(Protocol):
    """Buffers and launches for one shape of batch."""

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Energy and forces."""


def _outputs(batch: AtomicBatch) -> tuple[Tensor, Tensor]:
    """Return uninitialised tensors for energies and forces."""
    device = batch.positions.device
    energy = torch.empty(batch.n_systems, dtype=torch.float64, device=device)
    return energy, torch.empty(len(batch.positions), 3, dtype=torch.float64, device=device)


class _MoleculeLauncher:
    """Buffers for one launch per evaluation."""

    def __init__(self, weights: _Weights, precision: Precision, shape: MoleculeShape, batch: AtomicBatch) -> None:
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


class _StagedLauncher:
    """Buffers and launches for each stage of each layer."""

    def __init__(self, weights: _Weights, precision: Precision, shape: StagedShape, batch: AtomicBatch) -> None:
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
