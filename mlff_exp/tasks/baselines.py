"""The baselines that are timed beside an engine: eager, the engine in FP32, others, the package's calculator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch

from mlff_exp.config import Config, Precision
from mlff_exp.engines import REFERENCE_ENGINE, AseEngine, Engine, engine_spec, make_engine
from mlff_exp.measure import require_correct, require_same_forces
from mlff_exp.models import LoadedModel, package_calculator
from mlff_exp.structures import AtomicBatch
from mlff_exp.tasks.registry import precisions
from mlff_exp.tasks.setup import ModelUnderTest, at_precision, gives_stress
from mlff_exp.tasks.workload import Workload


def eager_baseline(config: Config, loaded: LoadedModel, batch: AtomicBatch) -> Workload:
    """Return plain PyTorch in FP32 on a batch. It computes the stress if the engine of the run does."""
    stress = gives_stress(config, loaded.capabilities)
    eager = make_engine(loaded.model, REFERENCE_ENGINE, "fp32", batch.positions.device, stress=stress)
    return Workload(eager, batch, config.seed)


def make_reference(config: Config, loaded: LoadedModel, device: torch.device) -> Engine:
    """Return eager FP64, which is the truth of a model."""
    return make_engine(loaded.model, REFERENCE_ENGINE, "fp64", device, stress=gives_stress(config, loaded.capabilities))


def other_baselines(
    config: Config, tested: ModelUnderTest, loaded: LoadedModel, batch: AtomicBatch, single: AtomicBatch
) -> dict[str, Workload]:
    """Return the engine of the run in FP32, eager FP32 on one structure, and the engines of ``task.baselines``.

    Args:
        config: the configuration.
        tested: the model under test.
        loaded: its weights.
        batch: the batch that is timed.
        single: a batch of one structure.
    """
    *_, wide = precisions(config)
    same = tested.engine if wide == config.precision.name else at_precision(config, loaded, wide)
    found = {
        "same_engine_fp32": Workload(same, batch, config.seed),
        "eager_fp32_single": eager_baseline(config, loaded, single),
    }
    stress, precision = gives_stress(config, tested.capabilities), cast(Precision, config.precision.name)
    for name in config.task.baselines:
        also = stress and engine_spec(name).stress
        other = make_engine(loaded.model, name, precision, tested.device, stress=also)
        found[name] = Workload(other, batch, config.seed)
    return found


def calculator_baseline(
    config: Config, tested: ModelUnderTest, reference: Engine, single: AtomicBatch
) -> dict[str, Workload]:
    """Return the ASE calculator of the model's own package on one structure, if it has one.

    Raises:
        RuntimeError: its forces are not those of the reference.
    """
    calculator = package_calculator(config.model, tested.device.type, gives_stress(config, tested.capabilities))
    if calculator is None:
        return {}
    workload = Workload(AseEngine(calculator), single, config.seed)
    require_same_forces(workload.engine, reference, workload.geometries[0])
    return {"ase_calculator": workload}


def require_all_correct(workloads: Mapping[str, Workload], reference: Engine, seed: int) -> None:
    """Compare every workload with the reference: a speedup over a wrong baseline would mean nothing.

    Raises:
        RuntimeError: one of them is wrong.
    """
    for workload in workloads.values():
        precision = cast(Precision, workload.engine.precision)
        require_correct(workload.engine, reference, workload.geometries[0], precision, seed)
