"""Make the force field of a configuration by its `ModelSpec`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from mlff_exp.common import load_object
from mlff_exp.config import ConfigError, UnavailableError
from mlff_exp.models.foreign.settings import default_dtype, quiet, settings_kept
from mlff_exp.models.foreign.truth import UntrueError, check_truth
from mlff_exp.models.graph import as_force_field
from mlff_exp.models.protocol import ForceField
from mlff_exp.models.registry import MODELS
from mlff_exp.models.spec import Capabilities, ModelSpec


@dataclass(frozen=True)
class LoadedModel:
    """A force field that engines evaluate.

    Attributes:
        model: frozen, in evaluation mode, on the CPU.
        weights_sha256: identifies the weights.
        capabilities: those that the model states, or those that its spec states for every model of the kind.
    """

    model: ForceField
    weights_sha256: str
    capabilities: Capabilities = field(default_factory=Capabilities)


def load_model(options: Any, trust: Sequence[str]) -> LoadedModel:
    """Load the force field that options describe.

    Args:
        options: those of a spec that is not ``native``.
        trust: packages that the command line allows a configuration to import.

    Raises:
        ConfigError: it can't be made, or is no force field; the message names the model and what is wrong.
    """
    spec = MODELS[options.name]
    with settings_kept():  # foreign packages change them
        made = _made(spec, options, trust)
        loaded = made if isinstance(made, LoadedModel) else _as_force_field(made, _where(spec, options))
        if spec.capabilities.forces == "own" and not hasattr(loaded.model, "capabilities"):
            model: Any = loaded.model
            model.capabilities = spec.capabilities  # engines ask the model
        if spec.truth is not None:
            try:
                check_truth(loaded.model, loaded.weights_sha256, load_object(spec.truth)(options))
            except UntrueError as error:
                raise ConfigError(f"{_where(spec, options)}: {error}") from error
    return replace(loaded, capabilities=getattr(loaded.model, "capabilities", spec.capabilities))


def _as_force_field(made: Any, where: str) -> LoadedModel:
    """Freeze the model that a factory made, and describe it.

    Raises:
        ConfigError: it is no force field.
    """
    if not isinstance(made, nn.Module):
        raise ConfigError(f"{where} returned {type(made).__name__}; expected a torch.nn.Module")
    try:
        made = as_force_field(made)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error
    model: Any = made.cpu().eval().requires_grad_(False)
    return LoadedModel(model, _sha256(model.state_dict()))


def package_calculator(options: Any, device: str, stress: bool) -> Any | None:
    """Make the ASE calculator of a force field's own package, as its users call it.

    Args:
        options: those of a spec that is not ``native``; `load_model` has taken them.
        device: ``cpu`` or ``cuda``.
        stress: whether it computes the stress as well.

    Returns:
        A calculator with the same weights in FP32, or None if no package has one. Its calls leave the default type of
        PyTorch and the precision of products as they were.
    """
    spec = MODELS[options.name]
    if spec.truth is None:
        return None
    with settings_kept(), quiet():
        calculator = load_object(spec.truth)(options).calculator(device, stress=stress)
    calculate = calculator.calculate

    def calculate_fenced(*arguments: Any, **keywords: Any) -> None:
        # Not settings_kept: it takes as long as some calls, and the calls are timed.
        precision = torch.get_float32_matmul_precision()
        with default_dtype(torch.get_default_dtype()):
            try:
                calculate(*arguments, **keywords)
            finally:
                torch.set_float32_matmul_precision(precision)

    calculator.calculate = calculate_fenced
    return calculator


def load_calculator(options: Any, trust: Sequence[str]) -> Any:
    """Make the ASE calculator that options describe.

    Args:
        options: those of a spec that is ``native``.
        trust: packages that the command line allows a configuration to import.

    Raises:
        ConfigError: it can't be made; the message names the model and what is wrong.
    """
    return _made(MODELS[options.name], options, trust)


def _made(spec: ModelSpec, options: Any, trust: Sequence[str]) -> Any:
    try:
        return load_object(spec.factory)(options, trust)
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        if spec.extra is None:
            raise ConfigError(f"{_where(spec, options)}: {type(error).__name__}: {error}") from error
        raise UnavailableError(
            f"model={spec.name} needs {error.name}, which is not installed here: "
            f"make env-{spec.extra}, or pip install 'mlff-exp[{spec.extra}]'"
        ) from error
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise ConfigError(f"{_where(spec, options)}: {type(error).__name__}: {error}") from error


def _where(spec: ModelSpec, options: Any) -> str:
    """Return the word of the configuration that chose a force field."""
    value = getattr(options, str(spec.code), None)
    return f"model={spec.name}" if value is None else f"model.{spec.code}={value}"


def _sha256(weights: Mapping[str, torch.Tensor]) -> str:
    """Return a hash of the weights by name, with their types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
