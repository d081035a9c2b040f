"""Structures and teacher labels to distil a student from.

Teacher: GFN2-xTB (Bannwarth, Ehlert & Grimme, doi:10.1021/acs.jctc.8b01176) through `tblite`, which any
user can install and run, so every label can be made again. Molecules: ASE's `g2` collection.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import CalculationFailed
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS
from tqdm import tqdm

TEACHER = "GFN2-xTB (tblite, accuracy 0.1)"
MAX_FORCE_EV_PER_ANG = 30.0  # beyond this the teacher's electronic structure is not to be trusted
MIN_DISTANCE_ANG = 0.5


@dataclass(frozen=True)
class Sampling:
    """How each molecule's structures are made.

    Attributes:
        md_temperatures_k: one Langevin trajectory at each, K.
        md_frames: kept from each trajectory.
        md_stride: steps of 1 fs between kept frames.
        rattled: structures with Gaussian noise of 0.02 to 0.15 Å on every coordinate.
        scaled: structures stretched or compressed as a whole by 0.92 to 1.15.
        dimers: pairs of random molecules in random orientation, over the whole set.
        water_clusters: trajectories of two to five water molecules, over the whole set.
        seed: of everything random.
    """

    md_temperatures_k: tuple[float, ...] = (300.0, 700.0, 1200.0)
    md_frames: int = 70
    md_stride: int = 10
    rattled: int = 60
    scaled: int = 10
    dimers: int = 1500
    water_clusters: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Dataset:
    """Labelled structures of different sizes, joined end to end.

    Attributes:
        names: [n_structures] name of the molecule.
        counts: [n_structures] atoms of each.
        atomic_numbers: [sum of counts].
        positions: [sum of counts, 3] Å, rounded to FP32 *before* labelling.
        energies: [n_structures] eV.
        forces: [sum of counts, 3] eV/Å.
    """

    names: npt.NDArray[np.str_]
    counts: npt.NDArray[np.int64]
    atomic_numbers: npt.NDArray[np.int64]
    positions: npt.NDArray[np.float32]
    energies: npt.NDArray[np.float64]
    forces: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """[n_structures] where each one's atoms begin."""
        return np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)

    @property
    def sha256(self) -> str:
        """Hash of everything in the set, in hexadecimal."""
        digest = hashlib.sha256()
        for array in (self.counts, self.atomic_numbers, self.positions, self.energies, self.forces):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write a compressed npz without pickles."""
        np.savez_compressed(path, **{name: getattr(self, name) for name in self.__dataclass_fields__})

    @staticmethod
    def load(path: Path) -> Dataset:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return Dataset(**{name: arrays[name] for name in Dataset.__dataclass_fields__})

    @staticmethod
    def from_frames(frames: Sequence[Frame]) -> Dataset:
        """Join labelled frames."""
        return Dataset(
            names=np.array([frame.name for frame in frames]),
            counts=np.array([len(frame.numbers) for frame in frames], dtype=np.int64),
            atomic_numbers=np.concatenate([frame.numbers for frame in frames]).astype(np.int64),
            positions=np.concatenate([frame.positions for frame in frames]),
            energies=np.array([frame.energy for frame in frames]),
            forces=np.concatenate([frame.forces for frame in frames]).astype(np.float32),
        )

    def select(self, chosen: npt.NDArray[np.bool_]) -> Dataset:
        """The structures where ``chosen`` [n_structures] holds."""
        of_atoms = np.repeat(chosen, self.counts)
        return Dataset(
            self.names[chosen],
            self.counts[chosen],
            self.atomic_numbers[of_atoms],
            self.positions[of_atoms],
            self.energies[chosen],
            self.forces[of_atoms],
        )


@dataclass(frozen=True)
class Frame:
    """One labelled structure; units as in `Dataset`."""

    name: str
    numbers: npt.NDArray[np.int64]
    positions: npt.NDArray[np.float32]
    energy: float
    forces: npt.NDArray[np.float64]


def teacher_calculator() -> Any:
    """The teacher as an ASE calculator.

    Accuracy 0.1 instead of tblite's default 1.0: the default is too loose to conserve energy in MD.

    Raises:
        ImportError: tblite is not installed.
    """
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise ImportError("the GFN2-xTB teacher needs tblite: pip install 'mlff-exp[distill]'") from error
    return TBLite(method="GFN2-xTB", accuracy=0.1, verbosity=0)


def generate(molecules: Sequence[str], sampling: Sampling, n_workers: int) -> Dataset:
    """Sample and label every molecule, in parallel, in an order that does not depend on it."""
    jobs: list[tuple[str, tuple[str, ...], int, Sampling]] = [
        ("molecule", (name,), index, sampling) for index, name in enumerate(molecules)
    ]
    rng = np.random.default_rng(sampling.seed)
    chunk = 50
    for index in range(sampling.dimers // chunk):
        pairs = tuple(str(name) for name in rng.choice(molecules, size=2 * chunk))
        jobs.append(("dimers", pairs, 10_000 + index, sampling))
    clusters = range(sampling.water_clusters)
    jobs += [("water", ("H2O",) * (2 + index % 4), 20_000 + index, sampling) for index in clusters]

    frames: list[Frame] = []
    with multiprocessing.get_context("spawn").Pool(n_workers, _one_thread) as pool:
        for result in tqdm(pool.imap(_run_job, jobs), total=len(jobs), desc="labelling", unit="job"):
            frames.extend(result)
    return Dataset.from_frames(frames)


def _one_thread() -> None:
    # Before tblite is loaded: more threads than cores would only wait for one another.
    os.environ["OMP_NUM_THREADS"] = "1"


def _run_job(job: tuple[str, tuple[str, ...], int, Sampling]) -> list[Frame]:
    kind, names, index, sampling = job
    rng = np.random.default_rng([sampling.seed, index])
    if kind == "molecule":
        return _sample_molecule(names[0], sampling, rng)
    if kind == "dimers":
        pairs = zip(names[::2], names[1::2], strict=True)
        return _label([("dimer", _assemble([molecule(a), molecule(b)], rng)) for a, b in pairs])
    cluster = _assemble([molecule(name) for name in names], rng)
    return _label([("water cluster", frame) for frame in _dynamics(cluster, 400.0, sampling, rng)])


def _sample_molecule(name: str, sampling: Sampling, rng: np.random.Generator) -> list[Frame]:
    relaxed = molecule(name)
    relaxed.calc = teacher_calculator()
    BFGS(relaxed, logfile=None).run(fmax=0.02, steps=200)
    structures = [relaxed.copy()]
    for temperature_k in sampling.md_temperatures_k:
        structures += _dynamics(relaxed.copy(), temperature_k, sampling, rng)
    for _ in range(sampling.rattled):
        rattled = relaxed.copy()
        rattled.positions += rng.normal(scale=rng.uniform(0.02, 0.15), size=rattled.positions.shape)
        structures.append(rattled)
    for _ in range(sampling.scaled):
        scaled = relaxed.copy()
        scaled.positions *= rng.uniform(0.92, 1.15)
        scaled.positions += rng.normal(scale=0.02, size=scaled.positions.shape)
        structures.append(scaled)
    return _label([(name, structure) for structure in structures])


def _dynamics(atoms: Atoms, temperature_k: float, sampling: Sampling, rng: np.random.Generator) -> list[Atoms]:
    """Frames of teacher MD, 1 fs steps; what was reached before a failure is kept."""
    atoms.calc = teacher_calculator()
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature_k, rng=rng)
    # fixcm=True, the default, would hold a small molecule far above the temperature asked for.
    dynamics = Langevin(atoms, units.fs, temperature_K=temperature_k, friction=0.02 / units.fs, fixcm=False, rng=rng)
    frames = []
    try:
        for _ in range(sampling.md_frames):
            dynamics.run(sampling.md_stride)
            frames.append(atoms.copy())
    except CalculationFailed:
        pass
    return frames


def _assemble(parts: Sequence[Atoms], rng: np.random.Generator) -> Atoms:
    """Put molecules beside each other in random orientation, nearest atoms 1.6 to 4.5 Å apart."""
    whole = parts[0].copy()
    for part in parts[1:]:
        new = part.copy()
        new.rattle(0.03, rng=rng)
        new.euler_rotate(*rng.uniform(0, 360, size=3), center="COM")
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        gap = rng.uniform(1.6, 4.5) if len(parts) == 2 else 1.9
        new.positions += whole.get_center_of_mass() - new.get_center_of_mass()
        while _nearest(whole, new) < gap:
            new.positions += 0.1 * direction
        whole += new
    return whole


def _nearest(a: Atoms, b: Atoms) -> float:
    return float(np.linalg.norm(a.positions[:, None] - b.positions[None], axis=-1).min())


def _label(structures: Sequence[tuple[str, Atoms]]) -> list[Frame]:
    """Teacher energies and forces; structures that it can't be trusted on are left out."""
    frames = []
    for name, atoms in structures:
        atoms.positions = atoms.positions.astype(np.float32)
        distances = atoms.get_all_distances()
        if len(atoms) > 1 and distances[~np.eye(len(atoms), dtype=bool)].min() < MIN_DISTANCE_ANG:
            continue
        atoms.calc = teacher_calculator()
        try:
            forces = atoms.get_forces()
        except CalculationFailed:
            continue
        if np.abs(forces).max() > MAX_FORCE_EV_PER_ANG:
            continue
        numbers = atoms.numbers.astype(np.int64)
        frames.append(
            Frame(name, numbers, atoms.positions.astype(np.float32), float(atoms.get_potential_energy()), forces)
        )
    return frames


def reference_energies(dataset: Dataset) -> dict[str, float]:
    """Least-squares energy of each element in FP64, eV per atom, by chemical symbol.

    Solves Σ_z count_z · E_z ≈ E over all structures, so that only the energy of bonding is left to learn.
    """
    from ase.data import chemical_symbols

    elements = np.unique(dataset.atomic_numbers)
    structure = np.repeat(np.arange(len(dataset)), dataset.counts)
    counts = np.zeros((len(dataset), len(elements)))
    np.add.at(counts, (structure, np.searchsorted(elements, dataset.atomic_numbers)), 1.0)
    solution, *_ = np.linalg.lstsq(counts, dataset.energies, rcond=None)
    return {chemical_symbols[z]: float(energy) for z, energy in zip(elements, solution, strict=True)}
