"""Labelled structures, stored compactly and without pickles."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.data import chemical_symbols

from mlff_exp.common import atomic_file, parse_json, typed_value
from mlff_exp.structures.arrays import Expected, array_names, read_arrays

Origin = Literal[
    "relaxed", "normal_modes", "rattled", "stretched", "teacher_md", "dimer", "water", "student_md", "student_exploded"
]
ORIGINS: tuple[Origin, ...] = get_args(Origin)
# Positions (Å) are rounded to multiples of this before the teacher labels them, so that the labels are exact. Forces
# (eV/Å) are rounded afterwards.
RESOLUTION = 1e-3
# Structures of molecules that no student was trained on; every accuracy is measured on them.
VALIDATION = Path(__file__).resolve().parent.parent / "datasets" / "validation.npz"
LARGEST = 32.767  # the largest value that 16 bits hold at this resolution
LARGEST_ENERGY_EV = 1e9  # above the binding energy of all electrons of the largest structure
# m molecules, n structures, N atoms of all structures.
ARRAYS = {
    "molecules": Expected("str", ("m",)),
    "molecule": Expected("int32", ("n",)),
    "origin": Expected("int8", ("n",)),
    "counts": Expected("int16", ("n",)),
    "atomic_numbers": Expected("int8", ("N",)),
    "position_steps": Expected("int16", ("N", 3)),
    "energies": Expected("float64", ("n",)),
    "force_steps": Expected("int16", ("N", 3)),
}


class DatasetError(ValueError):
    """A file that is no dataset, or an incomplete one; the message names the file."""


@dataclass(frozen=True)
class LabelledStructure:
    """One structure with the energy and forces of the teacher.

    Attributes:
        molecule: SMILES; those of several molecules are joined by dots.
        origin: the way in which the structure was made.
        atomic_numbers: [n_atoms].
        steps: [n_atoms, 3], positions in units of `RESOLUTION` Å.
        energy: eV.
        forces: [n_atoms, 3] eV/Å.
    """

    molecule: str
    origin: Origin
    atomic_numbers: npt.NDArray[np.int64]
    steps: npt.NDArray[np.int16]
    energy: float
    forces: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Dataset:
    """Labelled structures of different sizes, concatenated.

    Attributes:
        molecules: [n_molecules] SMILES.
        molecule: [n_structures], index into ``molecules``.
        origin: [n_structures], index into `ORIGINS`.
        counts: [n_structures], number of atoms of each structure.
        atomic_numbers: [sum of counts].
        position_steps: [sum of counts, 3], positions in units of `RESOLUTION` Å.
        energies: [n_structures] eV.
        force_steps: [sum of counts, 3], forces in units of `RESOLUTION` eV/Å.
    """

    molecules: npt.NDArray[np.str_]
    molecule: npt.NDArray[np.int32]
    origin: npt.NDArray[np.int8]
    counts: npt.NDArray[np.int16]
    atomic_numbers: npt.NDArray[np.int8]
    position_steps: npt.NDArray[np.int16]
    energies: npt.NDArray[np.float64]
    force_steps: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def positions(self) -> npt.NDArray[np.float64]:
        """Positions, [sum of counts, 3] Å."""
        return self.position_steps.astype(np.float64) * RESOLUTION

    @property
    def forces(self) -> npt.NDArray[np.float64]:
        """Forces, [sum of counts, 3] eV/Å."""
        return self.force_steps.astype(np.float64) * RESOLUTION

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Index of the first atom of each structure, [n_structures]."""
        return np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)[:-1]])

    def atoms(self, index: int) -> Atoms:
        """Return one structure without its labels."""
        its = slice(self.starts[index], self.starts[index] + self.counts[index])
        return Atoms(self.atomic_numbers[its], self.positions[its])

    @property
    def names(self) -> npt.NDArray[np.str_]:
        """SMILES of each structure, [n_structures]."""
        return self.molecules[self.molecule]

    @property
    def sha256(self) -> str:
        """SHA-256 hash of all arrays, in hexadecimal."""
        digest = hashlib.sha256("\n".join(self.molecules).encode())
        for name in list(self.__dataclass_fields__)[1:]:
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write a compressed npz file without pickles; a file that exists is always complete."""
        save_arrays(path, **{name: getattr(self, name) for name in self.__dataclass_fields__})

    @staticmethod
    def load(path: Path) -> Dataset:
        """Read a file that `save` wrote.

        Raises:
            DatasetError: the file is missing, damaged or no dataset.
        """
        try:
            return _dataset(read_arrays(path, ARRAYS))
        except ValueError as error:
            raise DatasetError(f"{path} is not a dataset of labelled structures: {error}") from error

    @staticmethod
    def from_structures(frames: Sequence[LabelledStructure]) -> Dataset:
        """Join labelled structures; none of their forces may exceed `LARGEST`."""
        molecules, molecule = np.unique([frame.molecule for frame in frames], return_inverse=True)
        return Dataset(
            molecules=molecules,
            molecule=molecule.astype(np.int32),
            origin=np.array([ORIGINS.index(frame.origin) for frame in frames], dtype=np.int8),
            counts=np.array([len(frame.atomic_numbers) for frame in frames], dtype=np.int16),
            atomic_numbers=np.concatenate([frame.atomic_numbers for frame in frames]).astype(np.int8),
            position_steps=np.concatenate([frame.steps for frame in frames]),
            energies=np.array([frame.energy for frame in frames]),
            force_steps=np.concatenate([quantise(frame.forces) for frame in frames]),
        )

    @staticmethod
    def concatenate(parts: Sequence[Dataset]) -> Dataset:
        """Concatenate datasets."""
        molecules, molecule = np.unique(np.concatenate([part.names for part in parts]), return_inverse=True)
        rest = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in list(Dataset.__dataclass_fields__)[2:]
        }
        return Dataset(molecules=molecules, molecule=molecule.astype(np.int32), **rest)

    def select(self, chosen: npt.NDArray[np.bool_]) -> Dataset:
        """Return the structures for which ``chosen`` [n_structures] is True."""
        of_atoms = np.repeat(chosen, self.counts)
        molecules, molecule = np.unique(self.names[chosen], return_inverse=True)
        return Dataset(
            molecules,
            molecule.astype(np.int32),
            self.origin[chosen],
            self.counts[chosen],
            self.atomic_numbers[of_atoms],
            self.position_steps[of_atoms],
            self.energies[chosen],
            self.force_steps[of_atoms],
        )


def quantise(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int16]:
    """Return values in units of `RESOLUTION`.

    Raises:
        ValueError: a value is too large for 16 bits.
    """
    if np.abs(values).max(initial=0.0) > LARGEST:
        raise ValueError(f"{np.abs(values).max():.3f} is more than the {LARGEST} that a dataset can hold")
    return np.rint(values / RESOLUTION).astype(np.int16)


@dataclass(frozen=True)
class Shard:
    """The structures that one labelling job made, and how often each kind of failure left a structure out."""

    dataset: Dataset | None
    failures: Counter[str] = field(default_factory=Counter)

    def save(self, path: Path) -> None:
        """Write the shard. A file that exists is complete, so that its job is done."""
        arrays = {} if self.dataset is None else {n: getattr(self.dataset, n) for n in Dataset.__dataclass_fields__}
        save_arrays(path, failures=np.array(json.dumps(self.failures)), **arrays)

    @staticmethod
    def load(path: Path) -> Shard:
        """Read a file that `save` wrote.

        Raises:
            DatasetError: the file is damaged.
        """
        try:
            labelled = array_names(path) != {"failures"}
            arrays = read_arrays(path, {"failures": Expected("str", ()), **(ARRAYS if labelled else {})})
            failures = typed_value(Mapping[str, int], parse_json(str(arrays.pop("failures"))), "failures")
            if min(failures.values(), default=1) < 1:
                raise ValueError("failures holds a count below 1")
            return Shard(_dataset(arrays) if labelled else None, Counter(failures))
        except ValueError as error:
            raise DatasetError(f"{path} is damaged; remove it and run again: {error}") from error


def _dataset(arrays: Mapping[str, npt.NDArray[Any]]) -> Dataset:
    """Check the arrays of a file and return them as a dataset.

    Raises:
        ValueError: the arrays do not fit together; the message says why.
    """
    n_structures, n_atoms = len(arrays["counts"]), len(arrays["atomic_numbers"])
    if n_structures == 0:
        raise ValueError("it has no structures")
    counts, total = arrays["counts"], int(arrays["counts"].sum(dtype=np.int64))
    _within("counts", counts, 1, np.iinfo(np.int16).max)
    if total != n_atoms:
        raise ValueError(f"counts add up to {total} atoms, and there are {n_atoms}")
    _within("molecule", arrays["molecule"], 0, len(arrays["molecules"]) - 1)
    _within("origin", arrays["origin"], 0, len(ORIGINS) - 1)
    _within("atomic_numbers", arrays["atomic_numbers"], 1, 118)
    _within("energies", arrays["energies"], -LARGEST_ENERGY_EV, LARGEST_ENERGY_EV)
    return Dataset(**arrays)


def _within(name: str, values: npt.NDArray[Any], low: float, high: float) -> None:
    bad = np.flatnonzero((values < low) | (values > high))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}] is {values[bad[0]]}, which is not from {low:g} to {high:g}")


def save_arrays(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """Write arrays to a compressed npz file without pickles; a file that exists is always complete."""
    with atomic_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def reference_energies(dataset: Dataset) -> Mapping[str, float]:
    """Fit the energy of each element by least squares in FP64.

    Solves Σ_z count_z · E_z ≈ E over all structures, so that a model has to learn the energy of bonding only.

    Returns:
        eV per atom by chemical symbol.
    """
    elements = np.unique(dataset.atomic_numbers)
    structure = np.repeat(np.arange(len(dataset)), dataset.counts)
    counts = np.zeros((len(dataset), len(elements)))
    np.add.at(counts, (structure, np.searchsorted(elements, dataset.atomic_numbers)), 1.0)
    solution, *_ = np.linalg.lstsq(counts, dataset.energies, rcond=None)
    return {chemical_symbols[z]: float(energy) for z, energy in zip(elements, solution, strict=True)}
