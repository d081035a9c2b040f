"""Energies of single atoms, against which an energy of atomisation is measured."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms

from mlff_exp.engines import Engine
from mlff_exp.structures import collate

LARGEST_NUMBER = 119  # one more than the heaviest element's


def isolated_energies(reference: Engine, atomic_numbers: Iterable[int]) -> npt.NDArray[np.float64]:
    """Energy that an engine gives each element's atom by itself, eV, by atomic number.

    Args:
        reference: eager FP64 of the weights.
        atomic_numbers: of the elements that are needed; those of all others are NaN.
    """
    numbers = sorted({int(number) for number in atomic_numbers})
    energies = np.full(LARGEST_NUMBER, np.nan)
    atoms = collate([Atoms(numbers=[number], positions=[[0, 0, 0]]) for number in numbers], reference.cutoff)
    with torch.no_grad():
        energies[numbers] = reference(atoms.to(reference.device)).energy.double().cpu().numpy()
    return energies
