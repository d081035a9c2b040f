"""A model by its entry point; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlff_exp.models import ModelSpec


@dataclass
class PairsOptions:
    """A pair energy from a small network.

    Attributes:
        width: of the network.
    """

    name: str = "outside_pairs"
    width: int = 8


def make(options: PairsOptions, trust: Sequence[str]) -> Any:
    """The network."""
    from outside_force_field.network import Pairs

    return Pairs(5.0, options.width)


SPEC = ModelSpec("outside_pairs", PairsOptions, "a pair energy from a small network", "outside_force_field.model:make")
