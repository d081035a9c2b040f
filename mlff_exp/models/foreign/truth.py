"""Whether an adapted force field computes what the calculator of its own package does."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from mlff_exp.common import atomic_write
from mlff_exp.models.foreign.settings import quiet
from mlff_exp.models.protocol import ForceField
from mlff_exp.models.spec import has_own_forces, shorter_cutoffs
from mlff_exp.models.stress import stress_of_gradients
from mlff_exp.structures import collate

PACKAGE = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Truth:
    """What a force field has to compute in FP32.

    Attributes:
        calculator: makes the ASE calculator of the force field's own package, FP32, on a device: ``cpu`` or ``cuda``.
            With the second argument ``stress=True`` it makes one that also gives stress.
        atoms: the structure to compare.
        packages: distributions on whose versions the numbers depend.
        energy_ev_per_atom: how far the energies may differ; what FP32 rounds.
        force_ev_per_ang: how far a component of a force may differ.
        stress_ev_per_ang3: how far a component of the stress may differ; None where the calculator gives none. The
            structure has to be periodic in all three directions.
    """

    calculator: Callable[..., Any]
    atoms: Atoms
    packages: tuple[str, ...]
    energy_ev_per_atom: float
    force_ev_per_ang: float
    stress_ev_per_ang3: float | None = None


class UntrueError(ValueError):
    """A force field that does not compute what the calculator of its package does."""


def check_truth(model: ForceField, weights_sha256: str, truth: Truth) -> None:
    """Compare a force field with its package's calculator, once for the same weights, versions and code.

    Args:
        model: FP32, on the CPU.
        weights_sha256: identifies its weights and reference energies.
        truth: what the force field is compared with, and how much it may differ.

    Raises:
        UntrueError: the numbers differ by more than FP32 rounds. The message says by how much.
    """
    cache_file = _cache() / f"{_key(weights_sha256, truth)}.json"
    if cache_file.is_file():
        return
    with quiet():
        atoms = truth.atoms.copy()
        compares_stress = truth.stress_ev_per_ang3 is not None
        atoms.calc = truth.calculator("cpu", stress=compares_stress)
        expected = atoms.get_potential_energy(), atoms.get_forces()
        expected_stress = atoms.get_stress(voigt=False) if compares_stress else None
    energy, forces, stress = _evaluate(deepcopy(model), truth.atoms)
    differences = {
        "energy_ev_per_atom": abs(energy - expected[0]) / len(atoms),
        "force_ev_per_ang": float(np.abs(forces - expected[1]).max()),
    }
    if expected_stress is not None and stress is not None:
        differences["stress_ev_per_ang3"] = float(np.abs(stress - expected_stress).max())
    for name, value in differences.items():
        if not value <= getattr(truth, name):  # NaN is no agreement either
            raise UntrueError(
                f"it does not compute what the calculator of {truth.packages[0]} {version(truth.packages[0])} does: "
                f"{name} differs by {value:.3g}, more than {getattr(truth, name):g}; its energy is {energy:.6f} eV and "
                f"the calculator's {expected[0]:.6f} eV for {atoms.get_chemical_formula()}"
            )
    try:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(cache_file, json.dumps(differences))
    except OSError:  # no home, no space or no permission: it is compared again next time
        return


def _evaluate(model: Any, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray | None]:
    """Return energy, eV, forces [n_atoms, 3], eV/Å, and stress [3, 3], eV/Å³.

    The stress has a meaning for a periodic cell only. A model with forces of its own gives none.
    """
    batch = collate([atoms], model.cutoff, near=shorter_cutoffs(model))
    if has_own_forces(model):
        energy, forces = model(batch)
        return float(energy), forces[batch.is_atom].detach().numpy(), None
    positions, cell = (tensor.clone().requires_grad_(True) for tensor in (batch.positions, batch.cell))
    with torch.enable_grad():
        energy = model(replace(batch, positions=positions, cell=cell))
        gradient, by_cell = torch.autograd.grad(
            energy.sum(), (positions, cell), allow_unused=True, materialize_grads=True
        )
    stress = stress_of_gradients(batch, gradient, by_cell)[0].numpy()
    return float(energy.detach()), -gradient[batch.is_atom].numpy(), stress


def _cache() -> Path:
    """Return the directory of comparisons that went well."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlff_exp" / "truth"


def _key(weights_sha256: str, truth: Truth) -> str:
    """Return a hash of all that the outcome depends on: weights, versions, structure, limits and our own code."""
    digest = hashlib.sha256(weights_sha256.encode())
    for words in (*(f"{name} {version(name)}" for name in truth.packages), *_numbers(truth)):
        digest.update(f"{words}\n".encode())
    for folder in ("models", "structures"):
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _numbers(truth: Truth) -> Iterator[str]:
    yield f"{truth.energy_ev_per_atom} {truth.force_ev_per_ang} {truth.stress_ev_per_ang3}"
    yield from (str(array.tolist()) for array in (truth.atoms.numbers, truth.atoms.positions, truth.atoms.cell[:]))
