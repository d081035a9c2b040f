"""``model=student``: weights of our architecture, or of the predecessor's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlff_exp.config import ConfigError, is_file, shipped_checkpoints, shown
from mlff_exp.models.spec import ModelSpec

if TYPE_CHECKING:
    from mlff_exp.models.loading import LoadedModel


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


def load(options: StudentModel, trust: Sequence[str]) -> LoadedModel:
    """Load the force field of a checkpoint.

    Raises:
        ConfigError: the checkpoint can't be used.
    """
    from mlff_exp.models.checkpoint import CheckpointError, load_checkpoint
    from mlff_exp.models.loading import LoadedModel

    try:
        loaded = load_checkpoint(options.checkpoint)
    except CheckpointError as error:
        raise ConfigError(f"model.checkpoint: {error}") from error
    return LoadedModel(loaded.model, loaded.weights_sha256)


SPEC = ModelSpec(
    "student",
    StudentModel,
    "weights of the shipped architecture",
    f"{__name__}:load",
    aliases=("painn", "checkpoint"),
)
