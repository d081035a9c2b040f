"""A force field that a function of somebody else makes: ``model=torch model.factory=package.module:function``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mlff_exp.common import load_object
from mlff_exp.models.graph import GraphForceField, GraphModel
from mlff_exp.models.protocol import ForceField


class FactoryError(ValueError):
    """A factory that gives no force field; the message names it and what is wrong."""


@dataclass(frozen=True)
class OutsideModel:
    """What a factory made.

    Attributes:
        model: frozen, in evaluation mode, on the CPU.
        weights_sha256: of the weights by name, with their types and shapes.
    """

    model: ForceField
    weights_sha256: str


def make_outside_model(factory: str, arguments: Mapping[str, Any]) -> OutsideModel:
    """Call a factory and wrap what it returns.

    Args:
        factory: ``package.module:function``; whether it may be followed is judged before.
        arguments: of the function, by name.

    Raises:
        FactoryError: it can't be imported or called, or returns neither a `ForceField` nor a `GraphForceField`.
    """
    try:
        made = load_object(factory)(**arguments)
    except (ImportError, TypeError, ValueError) as error:
        raise FactoryError(f"{factory}: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise FactoryError(f"{factory} returned {type(made).__name__}; expected a torch.nn.Module")
    if isinstance(made, GraphForceField) or not isinstance(made, ForceField):
        try:
            made = GraphModel(made)
        except (TypeError, ValueError) as error:
            raise FactoryError(f"{factory}: {error}") from error
    model: Any = made.cpu().eval().requires_grad_(False)
    return OutsideModel(model, _sha256(model.state_dict()))


def _sha256(weights: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
