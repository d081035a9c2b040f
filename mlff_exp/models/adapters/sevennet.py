"""``model=sevennet``: SevenNet with weights that its package holds, or with a checkpoint of the user's own."""

from __future__ import annotations

from dataclasses import dataclass

from mlff_exp.config import ConfigError, is_file, shown
from mlff_exp.models.spec import ModelSpec

SHIPPED = ("7net-0", "7net-l3i5")


@dataclass
class SevenNetModel:
    """A SevenNet of the package ``sevenn``.

    Attributes:
        checkpoint: ``7net-0`` or ``7net-l3i5``, which the package holds, or the path of a checkpoint.
    """

    name: str = "sevennet"
    checkpoint: str = SHIPPED[0]

    def __post_init__(self) -> None:
        if self.checkpoint not in SHIPPED and not is_file(self.checkpoint):
            raise ConfigError(
                f"model.checkpoint={shown(repr(self.checkpoint))} is neither a file nor one of: {', '.join(SHIPPED)}"
            )


SPEC = ModelSpec(
    "sevennet",
    SevenNetModel,
    "SevenNet with its published weights",
    "mlff_exp.models.foreign.sevennet:make",
    truth="mlff_exp.models.foreign.sevennet:truth",
    extra="sevennet",
)
