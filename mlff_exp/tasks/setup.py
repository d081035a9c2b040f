"""What every task that evaluates a force field begins with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_type_hints

import hydra.utils
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from hydra.errors import InstantiationException

from mlff_exp.config import (
    AseModel,
    Config,
    ConfigError,
    FileSystem,
    MoleculeSystem,
    Precision,
    System,
    TorchModel,
    judge_factory,
    judge_import_path,
    make_importable,
    top_level,
)
from mlff_exp.engines import AseEngine, Engine, make_engine
from mlff_exp.models import (
    Checkpoint,
    CheckpointError,
    FactoryError,
    OutsideModel,
    load_checkpoint,
    make_outside_model,
)
from mlff_exp.structures import build_systems, check_neighbors, refuse_charge_and_spin, uses_all_pairs

# Import paths of calculators before 0.2.0, and where each is now.
MOVED_TARGETS = {"mlff_exp.labelling.teacher_calculator": "mlff_exp.distill.teacher_calculator"}
# Calculators that take any word as an argument and refuse it when they first calculate, and a molecule to try.
TRIED_OUT = {"tblite.ase.TBLite": "H2"}
TRIED_AT = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.74))  # Å
TRIAL_FAILED = (RuntimeError, ValueError, TypeError, KeyError)


@dataclass(frozen=True)
class ModelUnderTest:
    """What a task measures.

    Attributes:
        engine: at the precision of the configuration.
        checkpoint: the weights in it, from which baselines and references are made; None for an ASE calculator, which
            has neither.
        device: where batches go.
    """

    engine: Engine
    checkpoint: Checkpoint | OutsideModel | None
    device: torch.device

    @property
    def tags(self) -> dict[str, str]:
        """Words that identify it."""
        weights = {} if self.checkpoint is None else {"checkpoint.sha256": self.checkpoint.weights_sha256}
        return {"engine.ran": self.engine.name, **weights}


def prepare_model(config: Config) -> ModelUnderTest:
    """The force field of a configuration, made ready.

    Raises:
        ConfigError: no usable checkpoint or calculator.
    """
    device = torch.device(config.device)
    if isinstance(config.model, AseModel):
        described = _with_present_target(config.model.calculator)
        _refuse_other_targets(described, config.trust)
        try:
            calculator = hydra.utils.instantiate(described, _recursive_=False)
            _try_out(calculator)
            return ModelUnderTest(AseEngine(calculator), None, device)
        except (InstantiationException, ValueError) as error:
            raise ConfigError(f"model.calculator: {error}") from error
    if isinstance(config.model, TorchModel):
        judge_factory(config.model.factory, config.trust)  # importing it would run its code
        make_importable(config.trust, Path.cwd())
        try:
            outside = make_outside_model(config.model.factory, config.model.arguments)
        except FactoryError as error:
            raise ConfigError(f"model.factory={error}") from error
        return ModelUnderTest(at_precision(config, outside, config.precision.name), outside, device)
    try:
        loaded = load_checkpoint(config.model.checkpoint)
    except CheckpointError as error:
        raise ConfigError(f"model.checkpoint: {error}") from error
    return ModelUnderTest(at_precision(config, loaded, config.precision.name), loaded, device)


def _try_out(calculator: BaseCalculator) -> None:
    """Evaluate a molecule with a calculator that looks at its arguments only then.

    Raises:
        ValueError: it can't be evaluated.
    """
    kind = type(calculator)
    symbols = TRIED_OUT.get(f"{kind.__module__}.{kind.__qualname__}")
    if symbols is None:
        return
    try:
        Atoms(symbols, TRIED_AT[: len(Atoms(symbols))], calculator=calculator).get_forces()
    except TRIAL_FAILED as error:
        told = f"argument {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{kind.__name__} can't evaluate {symbols} with these arguments: {told}") from error
    calculator.reset()


def _with_present_target(calculator: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a calculator; an import path of an earlier version is replaced, with a warning."""
    target = calculator["_target_"]
    present = MOVED_TARGETS.get(target) if isinstance(target, str) else None
    if present is None:
        return dict(calculator)
    warnings.warn(
        f"model.calculator._target_={target} is a name of an earlier version, which 0.3.0 will refuse: write {present}",
        FutureWarning,
        stacklevel=2,
    )
    return {**calculator, "_target_": present}


def _refuse_other_targets(calculator: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Let a configuration reach ASE calculators, and functions that say they return one, and nothing else.

    Raises:
        ConfigError: another target, or a target among the arguments.
    """
    target = calculator["_target_"]
    judge_import_path(target, allowed)  # importing it would run its code
    if any(_is_special(key) for key in _keys({k: v for k, v in calculator.items() if k not in ("_target_", "_args_")})):
        raise ConfigError(f"model.calculator: an argument of {target} has a _target_ of its own, which is not followed")
    make_importable(allowed, Path.cwd())
    try:
        found = hydra.utils.get_object(target)
    except (ImportError, InstantiationException, ValueError) as error:
        raise ConfigError(f"model.calculator._target_={target}: {error}") from error
    made = found if isinstance(found, type) else get_type_hints(found).get("return") if callable(found) else None
    if not (isinstance(made, type) and issubclass(made, BaseCalculator)):
        raise ConfigError(
            f"model.calculator._target_={target} is neither an ASE calculator nor a function annotated to return one"
        )
    if top_level(target) not in allowed:  # one module can lead to what another holds
        judge_import_path(f"{found.__module__}.{found.__qualname__}", allowed)


def _is_special(key: str) -> bool:
    """Whether Hydra takes a key as an instruction."""
    return key in ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield str(key)
            yield from _keys(below)
    elif isinstance(value, list):
        for below in value:
            yield from _keys(below)


def at_precision(config: Config, loaded: Checkpoint | OutsideModel, precision: str) -> Engine:
    """The engine of the configuration at a precision."""
    device, options = torch.device(config.device), config.engine
    return make_engine(loaded.model, options.name, cast(Precision, precision), device, options)


def described_systems(config: Config, subject: ModelUnderTest) -> dict[str, Atoms]:
    """The systems of a configuration by name: one, or several frames of a file.

    Raises:
        ConfigError: one is unreadable, holds what the model does not know, or has more neighbours than fit.
    """
    return _built(config.system, subject)


def load_systems(config: Config, subject: ModelUnderTest) -> dict[str, Atoms]:
    """The systems of an NVE run by name: those of the task, or else those of the configuration.

    Raises:
        ConfigError: as `described_systems`.
    """
    if not config.task.systems:
        return described_systems(config, subject)
    return {name: atoms for one in config.task.systems for name, atoms in _built(MoleculeSystem(one), subject).items()}


def _built(described: System, subject: ModelUnderTest) -> dict[str, Atoms]:
    found = build_systems(described)
    where = f"path={described.path!r}" if isinstance(described, FileSystem) else f"name={described.name}"
    for name, atoms in found.items():
        at = f"system.{where}: " + (f"{name}: " if len(found) > 1 else "")
        try:
            if not uses_all_pairs(atoms):
                check_neighbors(atoms, subject.engine.cutoff)
            if subject.checkpoint is not None:
                subject.checkpoint.model.check_elements(atoms.symbols)
        except ValueError as error:
            raise ConfigError(f"{at}{error}") from error
        if subject.checkpoint is not None:
            try:
                refuse_charge_and_spin(atoms)
            except ValueError as error:
                raise ConfigError(f"{at}{error}; system.ignore_charge=true takes it for that") from error
    return found
