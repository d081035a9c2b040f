"""What every task that evaluates a force field begins with."""

from __future__ import annotations

import torch
from ase import Atoms

from mlff_exp import checkpoint, systems
from mlff_exp.checkpoint import Checkpoint
from mlff_exp.config import Config, ConfigError


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
