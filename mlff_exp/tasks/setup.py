"""What every task that evaluates a force field begins with."""

from __future__ import annotations

from typing import cast

import torch
from ase import Atoms

from mlff_exp import checkpoint, systems
from mlff_exp.checkpoint import Checkpoint
from mlff_exp.config import CompileMode, Config, ConfigError, Precision
from mlff_exp.engine import Engine, make_engine
from mlff_exp.painn import PaiNN


def load(config: Config) -> tuple[Checkpoint, Atoms, torch.device]:
    """Checkpoint, system and device.

    Raises:
        ConfigError: no usable checkpoint, an unreadable system, or elements that the model does not know.
    """
    try:
        loaded = checkpoint.load(config.model.checkpoint)
    except checkpoint.CheckpointError as error:
        raise ConfigError(f"model.checkpoint: {error}") from error
    atoms = systems.build(config.system)
    try:
        loaded.model.check_elements(atoms.symbols)
    except ValueError as error:
        raise ConfigError(f"system={config.system.name}: {error}") from error
    return loaded, atoms, torch.device(config.device)


def engine(config: Config, model: PaiNN, precision: str) -> Engine:
    """The engine of the configuration at a precision."""
    mode = cast(CompileMode, getattr(config.engine, "mode", "default"))
    return make_engine(model, config.engine.name, cast(Precision, precision), torch.device(config.device), mode)
