"""Make an engine from a model; energy, forces and stress are always one graph.

The engine that was asked for is the one that runs, or the call fails.
"""

from __future__ import annotations

from copy import deepcopy
from typing import cast

import torch

from mlff_exp.common import load_object
from mlff_exp.config import CUDA_PRECISIONS, PRECISIONS, CompileMode, Precision, choose
from mlff_exp.engines.compiled import CompiledEngine
from mlff_exp.engines.cuda_graph import CudaGraphEngine
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.engines.options import CompileOptions, CudaGraphOptions, EagerOptions, FusedOptions
from mlff_exp.engines.prediction import EngineError, Prediction
from mlff_exp.engines.protocol import Engine, ForceField
from mlff_exp.engines.registry import ENGINES, engine_spec
from mlff_exp.models import PaiNN, has_own_forces
from mlff_exp.structures import AtomicBatch


def make_engine(
    model: ForceField,
    engine: str,
    precision: Precision,
    device: torch.device,
    options: object | None = None,
    *,
    stress: bool = False,
) -> Engine:
    """Make an engine with its own frozen copy of the model.

    Args:
        model: any force field; it is not changed.
        engine: name in the registry.
        precision: precision of the network.
        device: device of the batches.
        options: options of the engine; its defaults if None.
        stress: whether to compute the stress of batches whose systems are periodic in all three directions. All other
            batches are evaluated as without it.

    Raises:
        EngineError: the device or the engine does not support the engine, the precision or stress.
        ValueError: there is no such engine or precision.
    """
    choose("precision", precision, PRECISIONS)
    spec = engine_spec(engine)
    if device.type != "cuda":
        for word, value, needs_cuda in (
            ("precision", precision, precision in CUDA_PRECISIONS),
            ("engine", engine, spec.needs_cuda),
        ):
            if needs_cuda:
                raise EngineError(f"{word} {value!r} needs a CUDA GPU; the device is {device.type!r}")
    if precision not in spec.precisions:
        raise EngineError(f"engine {engine!r} has no precision {precision!r}: use one of {', '.join(spec.precisions)}")
    if stress and has_own_forces(model):
        raise EngineError("a model with forces of its own gives no stress")
    if stress and not spec.stress:
        able = ", ".join(other.name for other in ENGINES if other.stress)
        raise EngineError(f"engine {engine!r} gives no stress: use one of {able}")
    dtype = torch.float64 if precision == "fp64" else torch.float32
    frozen = deepcopy(model).cast(dtype).to(device).eval().requires_grad_(False)
    make = load_object(spec.factory)
    asked = {"stress": True} if stress else {}  # a factory that can't give stress has no such argument
    return cast(Engine, make(frozen, precision, device, spec.options() if options is None else options, **asked))


def make_eager(
    model: ForceField, precision: Precision, device: torch.device, options: EagerOptions, *, stress: bool = False
) -> Engine:
    """Make the eager engine."""
    return EagerEngine(model, precision, device, stress=stress)


def make_compiled(
    model: ForceField, precision: Precision, device: torch.device, options: CompileOptions, *, stress: bool = False
) -> Engine:
    """Make the engine of `torch.compile`."""
    return CompiledEngine(model, precision, device, cast(CompileMode, options.mode), stress=stress)


def make_cuda_graph(
    model: ForceField, precision: Precision, device: torch.device, options: CudaGraphOptions, *, stress: bool = False
) -> Engine:
    """Make the engine that captures the compiled graph in a CUDA graph."""
    return CudaGraphEngine(options.name, CompiledEngine(model, precision, device, "default", stress=stress))


def make_fused(model: ForceField, precision: Precision, device: torch.device, options: FusedOptions) -> Engine:
    """Make the fused engine.

    Raises:
        EngineError: model, GPU or Triton do not allow it. The message says what is missing.
    """
    if not isinstance(model, PaiNN):
        raise EngineError("engine 'fused' supports only the architecture of this project: use engine 'cuda_graph'")
    try:
        from mlff_exp.engines.fused.engine import FusedEngine
    except ImportError as error:
        raise EngineError(f"engine 'fused' needs Triton, which is not installed: {error}") from error
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        raise EngineError(f"engine 'fused' needs a GPU of compute capability 8.0; this one has {capability}")
    return CudaGraphEngine(options.name, FusedEngine(model, precision, device))


def check_finite(prediction: Prediction, batch: AtomicBatch, precision: str) -> None:
    """Refuse NaN and infinity in a prediction; waits for the GPU.

    Raises:
        FloatingPointError: the message names the precision, the systems and the atomic numbers of the first.
    """
    energy_ok = prediction.energy.isfinite()
    forces_ok = batch.per_system(prediction.forces.isfinite()).flatten(1).all(dim=1)
    if prediction.stress is not None:
        energy_ok = energy_ok & prediction.stress.isfinite().flatten(1).all(dim=1)
    bad = (~(energy_ok & forces_ok)).nonzero().flatten().tolist()
    if bad:
        numbers = batch.per_system(batch.atomic_numbers)[bad[0]]
        raise FloatingPointError(
            f"{precision} gave NaN or infinite energies, forces or stress for systems {bad[:10]} of {batch.n_systems} "
            f"(the first has atomic numbers {numbers[numbers > 0].tolist()}): use a wider precision"
        )
