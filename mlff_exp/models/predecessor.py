"""The predecessor's model, so that its checkpoints can be compared with ours.

It is kept as it was, faults included: its update mixes the Cartesian components by a learned matrix, so energies
change when a molecule is turned, and its filters have biases, so energies jump where a pair crosses the cutoff.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from mlff_exp.models.embedded import Architecture, ElementEmbedding, EmbeddedNetwork
from mlff_exp.models.painn import pair_vectors
from mlff_exp.structures import AtomicBatch

MAX_MAX_Z = 1000
MOST_NUMBERS = 10**8  # of a weight; a tensor may claim more than it holds, and does not fit any model then
SETTINGS = ("hidden_dim", "num_interactions", "num_rbf", "cutoff", "max_z")


class PredecessorWarning(UserWarning):
    """A model that is known not to be a correct force field."""


def is_predecessor(content: Any) -> bool:
    """Return whether a loaded ``.pt`` has the predecessor's layout."""
    return isinstance(content, dict) and {"model_state_dict", "config"} <= set(content)


def check_weights(weights: Mapping[str, Any]) -> None:
    """Refuse weights that are not FP32 tensors, because converted weights would be another model.

    Raises:
        ValueError: a weight is something else. The message names it.
    """
    for name, weight in weights.items():
        if not isinstance(weight, Tensor) or weight.layout != torch.strided or weight.is_quantized:
            raise ValueError(f"weight {name!r} is not a dense tensor of plain numbers")
        if weight.dtype != torch.float32:
            raise ValueError(f"weight {name!r} is {str(weight.dtype).removeprefix('torch.')}, and weights are float32")
        if weight.device.type != "cpu":
            raise ValueError(f"weight {name!r} has no numbers (it is on the device {weight.device})")
        if weight.numel() <= MOST_NUMBERS and not weight.isfinite().all():
            raise ValueError(f"weight {name!r} holds NaN or infinite values")


def misfit(weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> str | None:
    """Describe the weights that are missing, unknown or of another shape; None if all fit."""
    missing, unknown = sorted(shapes.keys() - weights.keys()), sorted(weights.keys() - shapes.keys())
    if missing or unknown:
        faults = [
            f"{len(names)} {what}, as {names[0]}"
            for names, what in ((missing, "missing"), (unknown, "unknown"))
            if names
        ]
        return "; ".join(faults)
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            return f"{name} has the shape {tuple(weights[name].shape)}, not {tuple(shape)}"
    return None


def load_predecessor(content: Mapping[str, Any]) -> PredecessorPaiNN:
    """Make the model of a loaded ``.pt``, with a warning that it is not a correct force field.

    Args:
        content: ``model_state_dict``, its names optionally prefixed by ``model.``, and ``config``.

    Raises:
        ValueError: settings or weights are missing, or do not fit each other.
    """
    config, weights = content["config"], content["model_state_dict"]
    missing = [name for name in SETTINGS if not isinstance(config, Mapping) or name not in config]
    if missing:
        raise ValueError(f"its config lacks {', '.join(missing)}")
    settings = {name: config[name] for name in SETTINGS}
    Architecture(*(config[name] for name in SETTINGS[:4])).refuse_absurd()
    if type(config["max_z"]) is not int or not 1 < config["max_z"] <= MAX_MAX_Z:
        raise ValueError(f"max_z={config['max_z']!r} is not a whole number from 2 to {MAX_MAX_Z}")
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        raise ValueError("its model_state_dict holds no weights by name")
    weights = {re.sub(r"^model\.", "", name): tensor for name, tensor in weights.items()}
    # A model without memory shows whether the weights have the right shapes.
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in PredecessorPaiNN(**settings).state_dict().items()}
    check_weights(weights)
    if "rbf.widths" in weights and weights["rbf.widths"].numel() == 1:  # one width for all Gaussians
        weights["rbf.widths"] = weights["rbf.widths"].expand(shapes["rbf.widths"])
    if unfit := misfit(weights, shapes):
        raise ValueError(f"its weights do not fit its config: {unfit}")
    model = PredecessorPaiNN(**settings)
    model.load_state_dict(weights)
    warnings.warn(
        "a checkpoint of the predecessor: its energy changes when a molecule is turned and jumps at the cutoff; "
        "let the NVE gate judge it",
        PredecessorWarning,
        stacklevel=2,
    )
    return model.eval()


class PredecessorPaiNN(EmbeddedNetwork):
    """The predecessor's student over our batches; energies [n_systems] eV.

    Args:
        hidden_dim: features.
        num_interactions: message-and-update blocks.
        num_rbf: Gaussians.
        cutoff: Å.
        max_z: the largest atomic number it has an embedding for, or one more.
    """

    def __init__(self, hidden_dim: int, num_interactions: int, num_rbf: int, cutoff: float, max_z: int) -> None:
        super().__init__()
        self.architecture = Architecture(hidden_dim, num_interactions, num_rbf, cutoff)
        self.embedding = ElementEmbedding(max_z, hidden_dim)
        self.elements = tuple(chemical_symbols[1 : min(max_z, len(chemical_symbols))])
        self.rbf = _Gaussians(num_rbf, cutoff)
        self.interactions = nn.ModuleList(_Interaction(hidden_dim, num_rbf) for _ in range(num_interactions))
        self.energy_head = nn.Sequential(
            nn.Linear(hidden_dim, 64), nn.SiLU(), nn.Linear(64, 32), nn.SiLU(), nn.Linear(32, 1)
        )

    def cast(self, dtype: torch.dtype) -> PredecessorPaiNN:
        """Cast the weights in place."""
        return self.to(dtype)

    def forward(self, batch: AtomicBatch) -> Tensor:
        """Evaluate the energy of each system, [n_systems] eV, FP64."""
        cutoff = self.architecture.cutoff
        vectors = pair_vectors(batch, cutoff).to(self.dtype)
        distances = vectors.square().sum(dim=-1).sqrt()
        directions = vectors / distances.unsqueeze(-1)
        inside = (batch.mask & (distances < cutoff)).to(self.dtype)
        envelope = 0.5 * (torch.cos(torch.pi * distances / cutoff) + 1)
        radial = self.rbf(distances) * (envelope * inside).unsqueeze(-1)

        scalars = self.embedding(batch.atomic_numbers)
        equivariants = scalars.new_zeros(*scalars.shape, 3)
        for interaction in self.interactions:
            scalars, equivariants = interaction(scalars, equivariants, radial, inside, directions, batch.neighbors)
        atomic = torch.where(batch.is_atom, self.energy_head(scalars).squeeze(-1).double(), 0.0)
        return batch.per_system(atomic).sum(dim=-1)


class _Gaussians(nn.Module):
    centers: Tensor
    widths: Tensor

    def __init__(self, num_rbf: int, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("centers", torch.linspace(0, cutoff, num_rbf))
        self.register_buffer("widths", torch.full((num_rbf,), cutoff / num_rbf))

    def forward(self, distances: Tensor) -> Tensor:
        return torch.exp(-((distances.unsqueeze(-1) - self.centers) ** 2) / self.widths**2)


class _Interaction(nn.Module):
    def __init__(self, hidden_dim: int, num_rbf: int) -> None:
        super().__init__()
        self.message = _Message(hidden_dim, num_rbf)
        self.update = _Update(hidden_dim)

    def forward(
        self,
        scalars: Tensor,
        equivariants: Tensor,
        radial: Tensor,
        inside: Tensor,
        directions: Tensor,
        neighbors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        filter_s, filter_v, filter_r = (
            (self.message.rbf_to_scalar(radial) * inside.unsqueeze(-1)).unsqueeze(-1).chunk(3, dim=2)
        )
        to_scalars = (scalars[neighbors] * filter_s.squeeze(-1)).sum(dim=1)
        to_equivariants = (equivariants[neighbors] * filter_v + directions.unsqueeze(2) * filter_r).sum(dim=1)
        update: tuple[Tensor, Tensor] = self.update(scalars + to_scalars, equivariants + to_equivariants)
        return update


class _Message(nn.Module):
    def __init__(self, hidden_dim: int, num_rbf: int) -> None:
        super().__init__()
        self.rbf_to_scalar = nn.Sequential(
            nn.Linear(num_rbf, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, 3 * hidden_dim)
        )


class _Update(nn.Module):
    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.mixing_matrix = nn.Parameter(torch.eye(3))
        self.update_mlp = nn.Sequential(
            nn.Linear(2 * hidden_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, 3 * hidden_dim)
        )

    def forward(self, scalars: Tensor, equivariants: Tensor) -> tuple[Tensor, Tensor]:
        wide = equivariants.to(scalars.dtype)
        norm = (wide.square().sum(dim=-1) + 1e-8).sqrt()
        to_scalars, own, mixed = self.update_mlp(torch.cat([scalars, norm], dim=-1)).chunk(3, dim=-1)
        return scalars + to_scalars, wide * own.unsqueeze(-1) + (wide @ self.mixing_matrix.T) * mixed.unsqueeze(-1)
