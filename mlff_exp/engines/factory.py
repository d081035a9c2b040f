"""Engines turn a model into ``batch → Prediction``; energy and forces are always one graph.

The engine that was asked for is the one that runs, or the call fails.
"""

from __future__ import annotations

from copy import deepcopy

import torch

from mlff_exp.config import COMPILE_MODES, ENGINES, PRECISIONS, CompileMode, EngineName, Precision, choose
from mlff_exp.engines.compiled import CompiledEngine
from mlff_exp.engines.cuda_graph import CudaGraphEngine
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.engines.prediction import EngineError, Prediction
from mlff_exp.engines.protocol import Engine, ForceField
from mlff_exp.models import PaiNN
from mlff_exp.structures import AtomicBatch


def make_engine(
    model: ForceField,
    engine: EngineName,
    precision: Precision,
    device: torch.device,
    mode: CompileMode = "default",
) -> Engine:
    """An engine over its own frozen copy of the model.

    Raises:
        EngineError: an engine or precision that the device does not have.
        ValueError: an engine, mode or precision that does not exist.
    """
    choose("precision", precision, PRECISIONS)
    choose("engine", engine, ENGINES)
    choose("engine.mode", mode, COMPILE_MODES)
    if device.type != "cuda":
        for word, value in (("precision", precision), ("engine", engine)):
            if value in ("tf32", "cuda_graph", "fused"):
                raise EngineError(f"{word} {value!r} needs a CUDA GPU; the device is {device.type!r}")
    dtype = torch.float64 if precision == "fp64" else torch.float32
    frozen = deepcopy(model).cast(dtype).to(device).eval().requires_grad_(False)
    if engine == "eager":
        return EagerEngine(frozen, precision, device)
    if engine == "cuda_graph":
        return CudaGraphEngine(engine, CompiledEngine(frozen, precision, device, "default"))
    if engine == "fused":
        return CudaGraphEngine(engine, make_fused(frozen, precision, device))
    return CompiledEngine(frozen, precision, device, mode)


def make_fused(model: ForceField, precision: Precision, device: torch.device) -> Engine:
    """The fused engine, if model and GPU allow it.

    Raises:
        EngineError: names what is missing.
    """
    if not isinstance(model, PaiNN):
        raise EngineError("engine 'fused' knows the architecture of this project alone: use engine 'cuda_graph'")
    try:
        from mlff_exp.engines.fused.engine import FusedEngine
    except ImportError as error:
        raise EngineError(f"engine 'fused' needs Triton, which is not installed: {error}") from error
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        raise EngineError(f"engine 'fused' needs a GPU of compute capability 8.0; this one has {capability}")
    return FusedEngine(model, precision, device)


def check_finite(prediction: Prediction, batch: AtomicBatch, precision: str) -> None:
    """Refuse NaN and infinity; waits for the GPU.

    Raises:
        FloatingPointError: naming the precision, the systems and their atoms.
    """
    energy_ok = prediction.energy.isfinite()
    forces_ok = batch.per_system(prediction.forces.isfinite()).flatten(1).all(dim=1)
    bad = (~(energy_ok & forces_ok)).nonzero().flatten().tolist()
    if bad:
        numbers = batch.per_system(batch.atomic_numbers)[bad[0]]
        raise FloatingPointError(
            f"{precision} gave NaN or infinite energies or forces for systems {bad[:10]} of {batch.n_systems} "
            f"(the first has atomic numbers {numbers[numbers > 0].tolist()}): use a wider precision"
        )
