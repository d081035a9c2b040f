"""``model=mace``: a MACE of the user's own."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from mlff_exp.config import ConfigError, is_file, shown
from mlff_exp.models.spec import Capabilities, ModelSpec

PACKAGE = "mace"
# No autocast: parts in TorchScript multiply FP16 by FP32 numbers, which PyTorch refuses.
FULL_PRECISIONS = ("fp64", "fp32", "tf32")


@dataclass
class MACEModel:
    """A MACE of the package ``mace-torch``.

    The file is a pickle of the whole network, and loading it runs the code in it. It is loaded only if the command line
    says ``trust=[mace]``.

    Attributes:
        checkpoint: path of a ``.model`` file.
        head: which head of a network with several; its only one, or the one called default, if None.
    """

    name: str = "mace"
    checkpoint: str = MISSING
    head: str | None = None

    def __post_init__(self) -> None:
        if self.checkpoint != MISSING and not is_file(self.checkpoint):
            raise ConfigError(f"model.checkpoint={shown(repr(self.checkpoint))} is no file")


SPEC = ModelSpec(
    "mace",
    MACEModel,
    "a MACE of your own; trust=[mace] runs its file, a pickle",
    "mlff_exp.models.foreign.mace:make",
    truth="mlff_exp.models.foreign.mace:truth",
    capabilities=Capabilities(precisions=FULL_PRECISIONS),
    extra="mace",
)
