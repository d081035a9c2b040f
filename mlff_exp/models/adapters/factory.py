"""``model=torch``: a force field that a function of a package makes, ``model.factory=package.module:function``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from mlff_exp.common import load_object
from mlff_exp.config import ConfigError, judge_factory, make_importable
from mlff_exp.models.spec import ModelSpec


@dataclass
class TorchModel:
    """A force field that a function of a package makes.

    Attributes:
        factory: ``package.module:function``, which returns a `GraphForceField` or a `ForceField`.
        arguments: of that function, by name.
    """

    name: str = "torch"
    factory: str = MISSING
    arguments: dict[str, Any] = field(default_factory=dict)


def make(options: TorchModel, trust: Sequence[str]) -> Any:
    """Call the function and return the force field that it makes.

    Raises:
        ConfigError: the command line does not allow the function, or it can't be imported or called.
    """
    judge_factory(options.factory, trust)  # importing it would run its code
    make_importable(trust, Path.cwd())
    try:
        return load_object(options.factory)(**options.arguments)
    except (ImportError, TypeError, ValueError) as error:
        raise ConfigError(f"model.factory={options.factory}: {type(error).__name__}: {error}") from error


SPEC = ModelSpec(
    "torch", TorchModel, "a torch.nn.Module that a function of a package makes", f"{__name__}:make", code="factory"
)
