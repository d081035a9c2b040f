"""Prepare the force field and the systems of a task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from ase import Atoms

from mlff_exp.config import NATIVE, Config, ConfigError, FileSystem, MoleculeSystem, Precision, System
from mlff_exp.engines import AseEngine, Engine, SystemFacts, engine_spec, make_engine
from mlff_exp.models import MODELS, Capabilities, LoadedModel, load_calculator, load_model
from mlff_exp.structures import build_systems, check_neighbors, refuse_charge_and_spin, uses_all_pairs
from mlff_exp.tasks.machine import asks_for_stress, check_capabilities, check_system
from mlff_exp.tasks.trial import try_out


@dataclass(frozen=True)
class ModelUnderTest:
    """The model that a task measures, and the engine that evaluates it.

    Attributes:
        engine: the engine at the precision of the configuration.
        checkpoint: the weights, from which baselines and references are made; None for an ASE calculator, which has
            neither.
        device: the device of the batches.
        capabilities: the capabilities of the model.
    """

    engine: Engine
    checkpoint: LoadedModel | None
    device: torch.device
    capabilities: Capabilities = field(default_factory=Capabilities)

    @property
    def has_own_forces(self) -> bool:
        """Whether the model gives forces of its own, so that no engine of ours takes the gradient of its energy."""
        return self.checkpoint is None or self.capabilities.forces == "own"

    @property
    def tags(self) -> dict[str, str]:
        """Tags that identify the engine and the weights."""
        weights = {} if self.checkpoint is None else {"checkpoint.sha256": self.checkpoint.weights_sha256}
        return {"engine.ran": self.engine.name, **weights}


def prepare_model(config: Config) -> ModelUnderTest:
    """Load the model of a configuration and make its engine.

    Args:
        config: the configuration.

    Raises:
        ConfigError: the model can't be loaded, or lacks a capability that the configuration needs.
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
    """Make the engine of the configuration at a precision.

    Args:
        config: names the engine, its options and the device.
        loaded: the model.
        precision: the precision.
    """
    device, options = torch.device(config.device), config.engine
    stress = gives_stress(config, loaded.capabilities)
    return make_engine(loaded.model, options.name, cast(Precision, precision), device, options, stress=stress)


def gives_stress(config: Config, can: Capabilities) -> bool:
    """Return whether the engine of a run computes the stress of systems that have one.

    Args:
        config: the configuration.
        can: the capabilities of the model. One with forces of its own gives no stress.
    """
    if config.engine.name == NATIVE or can.forces == "own":
        return False
    return asks_for_stress(config) and engine_spec(config.engine.name).stress


def described_systems(config: Config, tested: ModelUnderTest) -> dict[str, Atoms]:
    """Build the systems of a configuration, by name: one system, or several frames of a file.

    Args:
        config: the configuration.
        tested: the model under test.

    Raises:
        ConfigError: a system can't be read, has an element or a charge that the model does not know, or has more
            neighbours than memory holds.
    """
    return _built(config, config.system, tested)


def load_systems(config: Config, tested: ModelUnderTest) -> dict[str, Atoms]:
    """Build the systems of an NVE run, by name: those of ``task.systems``, or else those of ``system``.

    Args:
        config: the configuration.
        tested: the model under test.

    Raises:
        ConfigError: as `described_systems`.
    """
    if not config.task.systems:
        return described_systems(config, tested)
    return {
        name: atoms
        for one in config.task.systems
        for name, atoms in _built(config, MoleculeSystem(one), tested).items()
    }


def _built(config: Config, described: System, tested: ModelUnderTest) -> dict[str, Atoms]:
    found = build_systems(described)
    where = f"path={described.path!r}" if isinstance(described, FileSystem) else f"name={described.name}"
    for name, atoms in found.items():
        at = f"system.{where}: " + (f"{name}: " if len(found) > 1 else "")
        try:
            check_system(config, name, SystemFacts(len(atoms), bool(atoms.pbc.any())))
            if atoms.pbc.any() and not tested.capabilities.periodic:
                raise ValueError("the model takes no periodic systems")
            if not uses_all_pairs(atoms):
                check_neighbors(atoms, tested.engine.cutoff)
            if tested.checkpoint is not None:
                tested.checkpoint.model.check_elements(atoms.symbols)
        except ValueError as error:
            raise ConfigError(f"{at}{error}") from error
        if not tested.capabilities.charged:
            try:
                refuse_charge_and_spin(atoms)
            except ValueError as error:
                raise ConfigError(f"{at}{error}; system.ignore_charge=true takes it for that") from error
    if found:
        name, atoms = next(iter(found.items()))
        refuse_no_force_field(tested, atoms, f"system.{where}" + f": {name}" * (len(found) > 1))
    return found


def refuse_no_force_field(tested: ModelUnderTest, atoms: Atoms, what: str) -> None:
    """Refuse an ASE calculator that is no force field for a structure.

    Args:
        tested: the model under test; one with weights was tried out when they were loaded.
        atoms: the structure.
        what: the words for it in a message.

    Raises:
        ConfigError: the message names the structure and the reason.
    """
    if isinstance(tested.engine, AseEngine):
        try:
            try_out(tested.engine.calculator, atoms)
        except ValueError as error:
            raise ConfigError(f"model.calculator: {what}: {error}") from error
