"""Prepare the force field and the systems of a task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from ase import Atoms

from mlff_exp.config import Config, ConfigError, FileSystem, MoleculeSystem, Precision, System
from mlff_exp.engines import AseEngine, Engine, SystemFacts, make_engine
from mlff_exp.models import MODELS, Capabilities, LoadedModel, load_calculator, load_model
from mlff_exp.structures import build_systems, check_neighbors, refuse_charge_and_spin, uses_all_pairs
from mlff_exp.tasks.machine import check_capabilities, check_system


@dataclass(frozen=True)
class ModelUnderTest:
    """What a task measures.

    Attributes:
        engine: at the precision of the configuration.
        checkpoint: the weights in it, from which baselines and references are made; None for a model that runs as it
            is, which has neither.
        device: where batches go.
        capabilities: of the model.
    """

    engine: Engine
    checkpoint: LoadedModel | None
    device: torch.device
    capabilities: Capabilities = field(default_factory=Capabilities)

    @property
    def tags(self) -> dict[str, str]:
        """Words that identify it."""
        weights = {} if self.checkpoint is None else {"checkpoint.sha256": self.checkpoint.weights_sha256}
        return {"engine.ran": self.engine.name, **weights}


def prepare_model(config: Config) -> ModelUnderTest:
    """The force field of a configuration, made ready.

    Raises:
        ConfigError: it can't be made, or can't do what the configuration asks for.
    """
    device, spec = torch.device(config.device), MODELS[config.model.name]
    if spec.native:
        calculator = load_calculator(config.model, config.trust)
        try:
            return ModelUnderTest(AseEngine(calculator), None, device, spec.capabilities)
        except ValueError as error:
            raise ConfigError(f"model.calculator: {error}") from error
    loaded = load_model(config.model, config.trust)
    check_capabilities(loaded.capabilities, config)
    return ModelUnderTest(at_precision(config, loaded, config.precision.name), loaded, device, loaded.capabilities)


def at_precision(config: Config, loaded: LoadedModel, precision: str) -> Engine:
    """Make the engine of the configuration at a precision."""
    device, options = torch.device(config.device), config.engine
    return make_engine(loaded.model, options.name, cast(Precision, precision), device, options)


def described_systems(config: Config, subject: ModelUnderTest) -> dict[str, Atoms]:
    """The systems of a configuration by name: one, or several frames of a file.

    Raises:
        ConfigError: one is unreadable, holds what the model does not know, or has more neighbours than fit.
    """
    return _built(config, config.system, subject)


def load_systems(config: Config, subject: ModelUnderTest) -> dict[str, Atoms]:
    """The systems of an NVE run by name: those of the task, or else those of the configuration.

    Raises:
        ConfigError: as `described_systems`.
    """
    if not config.task.systems:
        return described_systems(config, subject)
    return {
        name: atoms
        for one in config.task.systems
        for name, atoms in _built(config, MoleculeSystem(one), subject).items()
    }


def _built(config: Config, described: System, subject: ModelUnderTest) -> dict[str, Atoms]:
    found = build_systems(described)
    where = f"path={described.path!r}" if isinstance(described, FileSystem) else f"name={described.name}"
    for name, atoms in found.items():
        at = f"system.{where}: " + (f"{name}: " if len(found) > 1 else "")
        try:
            check_system(config, name, SystemFacts(len(atoms), bool(atoms.pbc.any())))
            if atoms.pbc.any() and not subject.capabilities.periodic:
                raise ValueError("the model takes no periodic systems")
            if not uses_all_pairs(atoms):
                check_neighbors(atoms, subject.engine.cutoff)
            if subject.checkpoint is not None:
                subject.checkpoint.model.check_elements(atoms.symbols)
        except ValueError as error:
            raise ConfigError(f"{at}{error}") from error
        if not subject.capabilities.charged:
            try:
                refuse_charge_and_spin(atoms)
            except ValueError as error:
                raise ConfigError(f"{at}{error}; system.ignore_charge=true takes it for that") from error
    return found
