"""The saved state of a training, with types that are checked before it is used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlff_exp.common import atomic_file
from mlff_exp.config import ConfigError
from mlff_exp.models import check_weights, misfit, read_torch_file

OPTIMIZER_PARTS = ("state", "param_groups")


@dataclass(frozen=True)
class TrainingState:
    """The state from which a training continues.

    Attributes:
        model: weights by name.
        averaged: moving average of the weights.
        optimizer: state of PyTorch's optimizer.
        step: number of gradient steps done.
        losses: pairs of a step and the mean loss up to it.
        seconds: time spent on these steps, s.
    """

    model: Mapping[str, Tensor]
    averaged: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    step: int
    losses: list[tuple[int, float]]
    seconds: float

    def save(self, path: Path) -> None:
        """Write the state; a file that exists is always complete."""
        with atomic_file(path) as partial:
            torch.save({item.name: getattr(self, item.name) for item in fields(self)}, partial)

    @staticmethod
    def load(path: Path, shapes: Mapping[str, torch.Size]) -> TrainingState:
        """Read a file that `save` wrote, onto the CPU.

        Args:
            path: the file.
            shapes: shapes of the model's weights by name.

        Raises:
            ConfigError: the file is damaged, or of another model. The message says what differs.
        """
        try:
            return _typed(read_torch_file(path), shapes)
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise ConfigError(f"{path} holds no state of this training: {error}") from error


def _typed(found: Any, shapes: Mapping[str, torch.Size]) -> TrainingState:
    names = sorted(item.name for item in fields(TrainingState))
    if not isinstance(found, dict) or sorted(map(str, found)) != names:
        raise ValueError(f"it must hold exactly {', '.join(names)}")
    state = TrainingState(**found)
    for name in ("model", "averaged"):
        weights = getattr(state, name)
        if not isinstance(weights, Mapping):
            raise ValueError(f"its {name} holds no weights by name")
        check_weights(weights)
        if unfit := misfit(weights, shapes):
            raise ValueError(f"its {name} does not fit the model: {unfit}")
    if type(state.step) is not int or state.step < 1:
        raise ValueError(f"its step is {state.step!r}, which is not an integer of at least 1")
    if type(state.seconds) not in (int, float) or not 0 <= state.seconds < math.inf:
        raise ValueError(f"its seconds are {state.seconds!r}, which is no number from 0 on")
    pairs = state.losses if isinstance(state.losses, list) else [None]
    if not all(_is_loss(pair) for pair in pairs) or not pairs or pairs[-1][0] != state.step:
        raise ValueError("its losses are no pairs of a step and a finite number up to its step")
    _check_optimizer(state.optimizer)
    return state


def _is_loss(pair: Any) -> bool:
    return (
        isinstance(pair, tuple)
        and len(pair) == 2
        and type(pair[0]) is int
        and type(pair[1]) is float
        and math.isfinite(pair[1])
    )


def _check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Mapping) or sorted(map(str, optimizer)) != sorted(OPTIMIZER_PARTS):
        raise ValueError(f"its optimizer must hold exactly {', '.join(OPTIMIZER_PARTS)}")
    moments = optimizer["state"]
    if not isinstance(moments, Mapping) or not all(isinstance(one, Mapping) for one in moments.values()):
        raise ValueError("its optimizer holds no numbers for each weight")
    for one in moments.values():
        check_weights(one)
