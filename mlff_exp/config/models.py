"""Options of models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from mlff_exp.config.checks import finite, is_file, shown
from mlff_exp.config.errors import ConfigError

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"


def shipped_checkpoints() -> tuple[str, ...]:
    """Names of the checkpoints inside the package."""
    return tuple(sorted(path.stem for path in CHECKPOINTS.glob("*.safetensors")))


@dataclass
class StudentModel:
    """A force field of our architecture, or of the predecessor's.

    Attributes:
        checkpoint: name of a shipped checkpoint, or a path.
    """

    name: str = "student"
    checkpoint: str = "student"

    def __post_init__(self) -> None:
        if self.checkpoint not in shipped_checkpoints() and not is_file(self.checkpoint):
            raise ConfigError(
                f"model.checkpoint={shown(repr(self.checkpoint))} is neither a file nor one of: "
                f"{', '.join(shipped_checkpoints())}"
            )


@dataclass
class AseModel:
    """Any ASE calculator, as it is: it loops over a batch and takes no engine and no precision.

    Attributes:
        calculator: its class or function as ``_target_``, and the arguments.
    """

    name: str = "ase"
    calculator: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "_target_" not in self.calculator:
            raise ConfigError("model.calculator needs a _target_, for example mlff_exp.distill.teacher_calculator")
        finite("model.calculator", self.calculator)


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
