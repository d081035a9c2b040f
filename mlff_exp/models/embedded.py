"""The common base of networks with an embedding of each element."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

MAX_CUTOFF_ANG = 50.0


@dataclass(frozen=True)
class Architecture:
    """The sizes of a network, which determine the shapes of its weights; stored in every checkpoint.

    Attributes:
        n_features: width of the scalar and of the vector channel.
        n_interactions: message-and-update blocks.
        n_rbf: radial basis functions.
        cutoff: Å.
    """

    n_features: int = 128
    n_interactions: int = 3
    n_rbf: int = 20
    cutoff: float = 5.0

    def refuse_absurd(self) -> None:
        """Refuse sizes that no file of weights fits, before a model is made of them.

        Raises:
            ValueError: a size is illegal. The message names it and the legal ones.
        """
        for name, least, most in (("n_features", 2, 4096), ("n_interactions", 1, 64), ("n_rbf", 1, 1024)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name}={value!r} is not a whole number from {least} to {most}")
        if type(self.cutoff) not in (int, float) or not 0.5 <= self.cutoff <= MAX_CUTOFF_ANG:
            raise ValueError(f"cutoff={self.cutoff!r} is not a number from 0.5 to {MAX_CUTOFF_ANG:g} Å")


class ElementEmbedding(nn.Embedding):
    """One row of weights for each element; it can be made on the device ``meta`` without seconds of delay."""

    def reset_parameters(self) -> None:
        """Draw the weights; not on ``meta``, where PyTorch would import its compiler to draw normal numbers."""
        if not self.weight.is_meta:
            super().reset_parameters()


class EmbeddedNetwork(nn.Module):
    """A network with an embedding of each element that it knows.

    Attributes:
        architecture: sizes and cutoff.
        elements: chemical symbols that it knows.
        embedding: its weights have the type of all weights.
    """

    architecture: Architecture
    elements: tuple[str, ...]
    embedding: nn.Embedding

    @property
    def cutoff(self) -> float:
        """The cutoff of interactions, Å."""
        return self.architecture.cutoff

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.embedding.weight.dtype

    def check_elements(self, symbols: Iterable[str]) -> None:
        """Refuse elements that it does not know.

        Raises:
            ValueError: names them and the known ones.
        """
        check_elements(symbols, self.elements)


def check_elements(symbols: Iterable[str], known: Sequence[str]) -> None:
    """Refuse elements that are not known.

    Raises:
        ValueError: an element is unknown. The message names it and the known ones.
    """
    unknown = sorted(set(symbols) - set(known))
    if unknown:
        raise ValueError(f"the model was not trained on {', '.join(unknown)}; it knows {', '.join(known)}")
