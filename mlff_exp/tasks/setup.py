"""What every task that evaluates a force field begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_type_hints

import hydra.utils
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from hydra.errors import InstantiationException

from mlff_exp import checkpoint, systems
from mlff_exp.ase_engine import AseEngine
from mlff_exp.checkpoint import Checkpoint
from mlff_exp.config import (
    AseModel,
    CompileMode,
    Config,
    ConfigError,
    FileSystem,
    MoleculeSystem,
    Precision,
    System,
    flatten,
)
from mlff_exp.engine import Engine, make_engine


@dataclass(frozen=True)
class Subject:
    """What a task measures.

    Attributes:
        engine: at the precision of the configuration.
        checkpoint: the weights in it, from which baselines and references are made; None for an ASE calculator, which
            has neither.
        device: where batches go.
    """

    engine: Engine
    checkpoint: Checkpoint | None
    device: torch.device

    @property
    def tags(self) -> dict[str, str]:
        """Words that identify it."""
        weights = {} if self.checkpoint is None else {"checkpoint.sha256": self.checkpoint.weights_sha256}
        return {"engine.ran": self.engine.name, **weights}


def subject(config: Config) -> Subject:
    """The force field of a configuration, made ready.

    Raises:
        ConfigError: no usable checkpoint or calculator.
    """
    device = torch.device(config.device)
    if isinstance(config.model, AseModel):
        _refuse_other_targets(config.model.calculator)
        try:
            calculator = hydra.utils.instantiate(config.model.calculator)
            return Subject(AseEngine(calculator), None, device)
        except (InstantiationException, ValueError) as error:
            raise ConfigError(f"model.calculator: {error}") from error
    try:
        loaded = checkpoint.load(config.model.checkpoint)
    except checkpoint.CheckpointError as error:
        raise ConfigError(f"model.checkpoint: {error}") from error
    return Subject(at_precision(config, loaded, config.precision.name), loaded, device)


def _refuse_other_targets(calculator: Mapping[str, Any]) -> None:
    """Let a configuration reach ASE calculators, and functions that say they return one, and nothing else.

    Raises:
        ConfigError: another target, or a target among the arguments.
    """
    target = calculator["_target_"]
    try:
        found = hydra.utils.get_object(target)
    except (ImportError, InstantiationException, ValueError) as error:
        raise ConfigError(f"model.calculator._target_={target}: {error}") from error
    made = found if isinstance(found, type) else get_type_hints(found).get("return")
    if not (isinstance(made, type) and issubclass(made, BaseCalculator)):
        raise ConfigError(
            f"model.calculator._target_={target} is neither an ASE calculator nor a function annotated to return one"
        )
    if any("_target_" in key for key in flatten({k: v for k, v in calculator.items() if k != "_target_"})):
        raise ConfigError(f"model.calculator: an argument of {target} has a _target_ of its own, which is not followed")


def at_precision(config: Config, loaded: Checkpoint, precision: str) -> Engine:
    """The engine of the configuration at a precision."""
    mode = cast(CompileMode, getattr(config.engine, "mode", "default"))
    return make_engine(loaded.model, config.engine.name, cast(Precision, precision), torch.device(config.device), mode)


def system(config: Config, loaded: Checkpoint | None) -> Atoms:
    """The system of a configuration.

    Raises:
        ConfigError: it is unreadable, or holds elements that the model does not know.
    """
    return _built(config.system, loaded)


def systems_side_by_side(config: Config, loaded: Checkpoint | None) -> dict[str, Atoms]:
    """The systems of an NVE run by name: those of the task, or else that of the configuration.

    Raises:
        ConfigError: as `system`.
    """
    if not config.task.systems:
        return {config.system.name: system(config, loaded)}
    return {name: _built(MoleculeSystem(name), loaded) for name in config.task.systems}


def _built(described: System, loaded: Checkpoint | None) -> Atoms:
    atoms = systems.build(described)
    if loaded is not None:
        try:
            loaded.model.check_elements(atoms.symbols)
        except ValueError as error:
            where = f"path={described.path}" if isinstance(described, FileSystem) else f"name={described.name}"
            raise ConfigError(f"system.{where}: {error}") from error
    return atoms
