"""Energies of isolated atoms, from which the energy of atomisation follows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms

from mlff_exp.engines import Engine
from mlff_exp.structures import collate

LARGEST_NUMBER = 119  # one more than the largest atomic number


def isolated_energies(reference: Engine, atomic_numbers: Iterable[int]) -> npt.NDArray[np.float64]:
    """Evaluate the energy of an isolated atom of each element.

    Args:
        reference: the reference engine, eager FP64.
        atomic_numbers: atomic numbers of the elements that are needed.

    Returns:
        [LARGEST_NUMBER] eV, indexed by atomic number; NaN for other elements.
    """
    numbers = sorted({int(number) for number in atomic_numbers})
    energies = np.full(LARGEST_NUMBER, np.nan)
    atoms = collate([Atoms(numbers=[number], positions=[[0, 0, 0]]) for number in numbers], reference.cutoff)
    with torch.no_grad():
        energies[numbers] = reference(atoms.to(reference.device)).energy.double().cpu().numpy()
    return energies
