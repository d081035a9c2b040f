"""Labelled structures that several tests use."""

from __future__ import annotations

import numpy as np

from mlff_exp.engines.eager import energy_and_forces
from mlff_exp.models.protocol import ForceField
from mlff_exp.structures.batch import collate
from mlff_exp.structures.datasets import Dataset, LabelledStructure, quantise
from tests.conftest import rattled


def random_dataset(seed: int) -> Dataset:
    """Energies are the numbers of the structures."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(int(rng.integers(1, 30))):
        n_atoms = int(rng.integers(2, 10))
        steps = quantise(rng.normal(scale=2, size=(n_atoms, 3)))
        forces = rng.normal(size=(n_atoms, 3))
        frames.append(
            LabelledStructure(f"m{index % 3}", "rattled", rng.choice([1, 6, 8], n_atoms), steps, float(index), forces)
        )
    return Dataset.from_structures(frames)


def labelled_by(model: ForceField, names: tuple[str, ...] = ("H2O", "CH4", "C6H6", "NH3")) -> Dataset:
    """Rattled molecules with the energies and forces of a model."""
    frames = []
    for seed in range(3):
        for name in names:
            atoms = rattled(name, seed)
            steps = quantise(atoms.positions)
            atoms.positions = steps * 1e-3
            energy, forces = energy_and_forces(model, collate([atoms], 5.0), "fp64")
            frames.append(
                LabelledStructure(name, "relaxed", atoms.numbers.astype(np.int64), steps, float(energy), forces.numpy())
            )
    return Dataset.from_structures(frames)
