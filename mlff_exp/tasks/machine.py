"""Check that the engines of a configuration exist, and that this machine can run it.

This module imports torch only to find a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mlff_exp.common import UnknownNameError
from mlff_exp.config import (
    CUDA_PRECISIONS,
    NATIVE,
    PRECISIONS,
    Config,
    ConfigError,
    Crystal,
    Gate,
    UnavailableError,
    WaterBox,
    did_you_mean,
    is_cuda,
    n_gpus,
)
from mlff_exp.engines import ENGINES, EngineSpec, SystemFacts, engine_spec
from mlff_exp.models import MODELS, Capabilities
from mlff_exp.results import METRICS, find_metric
from mlff_exp.tasks.registry import TASKS


def check_engines(config: Config) -> None:
    """Refuse engines that do not exist.

    Args:
        config: the configuration.

    Raises:
        ConfigError: an engine is unknown; the message names the key, the engine and the legal names.
    """
    for _ in engines_of(config):
        pass


def engines_of(config: Config) -> Iterator[tuple[str, EngineSpec]]:
    """Yield the engines that a run uses, each with the key that names it. An ASE calculator uses none.

    Raises:
        ConfigError: one does not exist, or its entry point can't be loaded.
    """
    if config.engine.name != NATIVE:
        named = [
            ("engine", config.engine.name),
            *(("task.baselines", name) for name in getattr(config.task, "baselines", [])),
        ]
        for key, name in named:
            try:
                yield key, engine_spec(name, key)
            except UnknownNameError as error:
                raise ConfigError(f"{key}={name}: {error}") from error


def check_criteria(gate: Gate) -> None:
    """Refuse a criterion whose metric does not exist, before anything is measured for it.

    Raises:
        ConfigError: a criterion is wrong. The message names it.
    """
    for metric in gate.criteria:
        if find_metric(metric) is None:
            hint = did_you_mean(metric, METRICS.names())
            raise ConfigError(f"gate.criteria.{metric}: no metric has this name{hint}; docs/metrics.md lists them")


def on_this_machine(config: Config) -> Config:
    """Resolve ``device=auto``, and refuse a combination that this machine can't run.

    Args:
        config: the configuration.

    Returns:
        The configuration with a definite device.

    Raises:
        UnavailableError: the machine can't run it; the message says what is missing.
        ConfigError: an engine does not exist.
    """
    check_criteria(config.gate)
    if config.engine.name == NATIVE:
        check_stress(config)
        # The calculator chooses its own device; it gets its batches on the CPU.
        return replace(config, device="cpu")
    device = config.device
    if device == "auto":
        device = "cuda" if is_cuda("auto") else "cpu"
    elif device != "cpu" and not is_cuda("auto"):
        raise UnavailableError(f"device={device}: this machine has no CUDA GPU; use device=cpu or device=auto")
    _, _, ordinal = device.partition(":")
    if ordinal and int(ordinal) >= (gpus := n_gpus()):
        raise UnavailableError(f"device={device}: CUDA GPUs of this machine: {gpus}, from cuda:0 on")
    precision = config.precision.name
    if device == "cpu" and precision in CUDA_PRECISIONS:
        usable = ", ".join(name for name in PRECISIONS if name not in CUDA_PRECISIONS)
        raise UnavailableError(f"precision={precision} needs a CUDA GPU; on device=cpu use one of: {usable}")
    check_capabilities(MODELS[config.model.name].capabilities, config)
    check_stress(config)
    for key, spec in engines_of(config):
        if device == "cpu" and spec.needs_cuda:
            usable = ", ".join(other.name for other in ENGINES if not other.needs_cuda)
            raise UnavailableError(f"{key}={spec.name} needs a CUDA GPU; on device=cpu use one of: {usable}")
        if config.precision.name not in spec.precisions:
            raise UnavailableError(
                f"{key}={spec.name} has no precision={config.precision.name}; use one of: {', '.join(spec.precisions)}"
            )
    if isinstance(config.system, WaterBox | Crystal) and uses_system(config):
        option = config.system.name if isinstance(config.system, Crystal) else "water_box"
        check_system(config, f"system={option}", SystemFacts(config.system.n_atoms, periodic=True))
    return replace(config, device=device)


def asks_for_stress(config: Config) -> bool:
    """Return whether the task of a run asks for the stress of systems that have one."""
    return getattr(config.task, "stress", "never") != "never"


def check_stress(config: Config) -> None:
    """Refuse engines that give no stress if the run can't do without.

    Args:
        config: the configuration.

    Raises:
        UnavailableError: it gives none. The message names the engine, or the model that runs as it is, and the engines
            that give stress.
    """
    if getattr(config.task, "stress", "never") != "required":
        return
    native = [f"model={config.model.name}"] if config.engine.name == NATIVE else []
    for none in [*native, *(f"{key}={spec.name}" for key, spec in engines_of(config) if not spec.stress)]:
        able = ", ".join(spec.name for spec in ENGINES if spec.stress)
        raise UnavailableError(
            f"task.stress=required: {none} gives no stress; use one of engine={able}, or task.stress=auto"
        )


def uses_system(config: Config) -> bool:
    """Return whether a run evaluates the system of the configuration."""
    return "system" not in TASKS[config.task.name].ignores and not getattr(config.task, "systems", [])


def check_system(config: Config, system: str, facts: SystemFacts) -> None:
    """Refuse a system that an engine of the run does not take.

    Args:
        config: names the engines.
        system: the words for the system in a message.
        facts: properties of the system.

    Raises:
        UnavailableError: the engine does not take the system. The message names both and what to use instead.
    """
    for key, spec in engines_of(config):
        if reason := spec.takes(facts):
            raise UnavailableError(f"{key}={spec.name} can't run {system}: {reason}")


def check_capabilities(can: Capabilities, config: Config) -> None:
    """Refuse engines and precisions that a model does not work with.

    Args:
        can: the capabilities of the model.
        config: the configuration; its model needs an engine.

    Raises:
        ConfigError: the model lacks a capability; the message names the key, its value and the legal ones.
    """
    model = f"model={config.model.name}"
    if config.precision.name not in can.precisions:
        raise ConfigError(f"precision={config.precision.name}: {model} works at one of: {', '.join(can.precisions)}")
    if can.forces == "own" and getattr(config.task, "stress", "never") == "required":
        raise ConfigError(f"task.stress=required: {model} has forces of its own and gives no stress: use auto or never")
    for key, spec in engines_of(config):
        if spec.compiles and not can.traceable:
            usable = ", ".join(other.name for other in ENGINES if not other.compiles)
            raise ConfigError(f"{key}={spec.name} compiles, and {model} can't be traced; use one of: {usable}")


def compiles(config: Config) -> bool:
    """Return whether an engine of a run compiles."""
    return any(spec.compiles for _, spec in engines_of(config))
