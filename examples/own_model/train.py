"""Train the SchNet of `schnet.py` for a minute, on labels that come with mlff_exp.

    python examples/own_model/train.py --minutes 1

The labels are GFN2-xTB energies and forces of 200 molecules. Every fifth molecule is left out and tells the errors.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers
from safetensors.torch import save_file
from schnet import WEIGHTS, SchNet
from torch import nn

from mlff_exp.engines import energy_and_forces
from mlff_exp.models import GraphModel
from mlff_exp.structures import VALIDATION, AtomicBatch, Dataset, collate, reference_energies

RATE = 5e-3  # of learning; it falls to zero at the end

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--minutes", type=float, default=1.0)
parser.add_argument("--batch-size", type=int, default=16)
parser.add_argument("--to", type=Path, default=WEIGHTS, help="file of the weights")
arguments = parser.parse_args()

labels = Dataset.load(VALIDATION)
held_out = labels.molecule % 5 == 0
elements = {atomic_numbers[symbol]: energy for symbol, energy in reference_energies(labels).items()}
torch.manual_seed(0)
model = GraphModel(SchNet(elements))


def batch_of(chosen: np.ndarray) -> tuple[AtomicBatch, torch.Tensor, torch.Tensor]:
    """Return structures as a batch, their energies [n_systems] eV and forces [n_atoms, 3] eV/Å."""
    forces = [labels.forces[labels.starts[i] : labels.starts[i] + labels.counts[i]] for i in chosen]
    batch = collate([labels.atoms(int(i)) for i in chosen], model.cutoff)
    return batch, torch.from_numpy(labels.energies[chosen]), torch.from_numpy(np.concatenate(forces))


def errors(chosen: np.ndarray, *, learn: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return errors of energies, eV per atom, and of forces, eV/Å."""
    batch, energies, forces = batch_of(chosen)
    energy, force = energy_and_forces(model, batch, "fp32", differentiable=learn)
    n_atoms = batch.per_system(batch.is_atom).sum(dim=1)
    return (energy - energies) / n_atoms, force[batch.is_atom] - forces


optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
random, train = np.random.default_rng(0), np.flatnonzero(~held_out)
train = train[np.argsort(labels.counts[train], kind="stable")]  # neighbours have as many atoms, and need no padding
started, seconds, steps = time.monotonic(), 60 * arguments.minutes, 0
while (elapsed := time.monotonic() - started) < seconds:
    for group in optimiser.param_groups:
        group["lr"] = RATE * (1 - elapsed / seconds)
    first = int(random.integers(len(train) - arguments.batch_size))
    energy, force = errors(train[first : first + arguments.batch_size], learn=True)
    loss = 10 * nn.functional.huber_loss(energy, torch.zeros_like(energy)) + force.square().mean()
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimiser.step()
    steps += 1
    if steps % 100 == 0:
        print(
            f"{elapsed:5.0f} s  step {steps}  force error {1000 * force.square().mean().sqrt():.0f} meV/Å", flush=True
        )

test = np.flatnonzero(held_out)[::4]
energy, force = errors(test, learn=False)
print(f"{steps} steps; molecules left out: energy {1000 * energy.abs().mean():.1f} meV/atom, "
      f"forces {1000 * force.abs().mean():.0f} meV/Å")  # fmt: skip
save_file(model.network.state_dict(), arguments.to, metadata={"elements": json.dumps(elements)})
print(f"weights: {arguments.to}; elements: {', '.join(reference_energies(labels))}")
