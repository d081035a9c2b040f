"""A force field of your own: SchNet as a function of edges, which `mlff_exp` measures.

Schütt et al., J. Chem. Phys. 148, 241722 (2018). `train.py` beside this file trains it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("schnet.safetensors")


class SchNet(nn.Module):
    """Energies of atoms from messages along edges.

    Args:
        elements: known atomic numbers, each with the energy of the isolated atom, eV.
        cutoff: Å.
        width: number of features of an atom.
        n_layers: number of rounds of messages.
    """

    def __init__(self, elements: dict[int, float], cutoff: float = 5.0, width: int = 32, n_layers: int = 2) -> None:
        super().__init__()
        self.elements, self.cutoffs = elements, (cutoff,)
        self.register_buffer("centres", torch.linspace(0.5, cutoff, 24))
        self.embed = nn.Embedding(100, width)
        self.send = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(n_layers))
        self.filter = nn.ModuleList(_two_layers(24, width) for _ in range(n_layers))
        self.update = nn.ModuleList(_two_layers(width, width) for _ in range(n_layers))
        self.energy = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, numbers: Tensor, system: Tensor, n_systems: int, edges: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Compute the energies of the atoms, [n_rows] eV; see `mlff_exp.models.GraphForceField`."""
        ((index, vectors),) = edges
        receivers, senders = index
        distances = vectors.square().sum(dim=-1, keepdim=True).sqrt()
        x = distances / self.cutoffs[0]
        envelope = (1 - x) ** 3 * (1 + 3 * x + 6 * x**2)  # 1 at no distance; 0 at the cutoff, with two derivatives
        shells = torch.exp(-10 * (distances - self.centres) ** 2)
        atoms = self.embed(numbers)
        for send, make_filter, update in zip(self.send, self.filter, self.update, strict=True):
            messages = send(atoms)[senders] * make_filter(shells) * envelope
            atoms = atoms + update(torch.zeros_like(atoms).index_add(0, receivers, messages.to(atoms.dtype)))
        return self.energy(atoms).squeeze(-1)


def _two_layers(n_inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_inputs, width), nn.SiLU(), nn.Linear(width, width))


def make(weights: str = str(WEIGHTS)) -> SchNet:
    """Load the network that `train.py` wrote: ``model.factory=own_model.schnet:make``."""
    if not Path(weights).is_file():
        raise ValueError(f"{weights} is not there: run train.py first")
    with safe_open(weights, "pt") as file:
        elements = json.loads(file.metadata()["elements"])
    network = SchNet({int(number): energy for number, energy in elements.items()})
    network.load_state_dict(load_file(weights))
    return network
