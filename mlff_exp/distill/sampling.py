"""Sample structures of a molecule: conformers, thermal displacements, noise, stretched bonds, teacher MD, neighbours.

The way of sampling decides only which structures the student sees; the labels come from the teacher alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.optimize import BFGS

from mlff_exp.structures import Origin

Array = npt.NDArray[np.float64]
KCAL_PER_MOL = units.kcal / units.mol
# Softer modes are sampled with this force constant, eV/(Å² u), which is 150 cm⁻¹: a large displacement in a straight
# line is no torsion any more.
SOFTEST = (150 * units.invcm / (units._hbar * 1e10 / np.sqrt(units._e * units._amu))) ** 2
GAPS_ANG = (1.6, 4.5)  # distance between the nearest atoms of two molecules
WATER_GAP_ANG = 1.9
SMALL_NOISE_ANG = 0.03


class SamplingError(RuntimeError):
    """A molecule gives no structures; the message is the kind of failure."""


@dataclass(frozen=True)
class Sampling:
    """Numbers of structures of each kind.

    Attributes:
        normal_modes: structures of each molecule with thermal displacements along the normal modes of a classical force
            field, at 100 to 1,500 K.
        rattled: structures of each molecule with Gaussian noise of 0.02 to 0.15 Å on every coordinate.
        stretched: structures of each molecule with one bond at 0.8 to 1.7 times its length.
        md_share: fraction of the molecules with a trajectory of teacher MD.
        md_temperatures_k: temperatures of a trajectory, one after the other, K.
        md_frames: frames at each temperature.
        md_stride: steps of 1 fs before each frame.
        dimers: pairs of molecules in the data set.
        water_clusters: trajectories of two to six water molecules in the data set.
        seed: random seed.
    """

    normal_modes: int = 16
    rattled: int = 5
    stretched: int = 4
    md_share: float = 0.1
    md_temperatures_k: tuple[float, ...] = (500.0, 1000.0, 1500.0)
    md_frames: int = 7
    md_stride: int = 20
    dimers: int = 3000
    water_clusters: int = 24
    seed: int = 0


def reduce_for_analogues(sampling: Sampling) -> Sampling:
    """Return a quarter as many structures and no teacher MD: new environments matter more than new geometries."""
    few = {name: getattr(sampling, name) // 4 for name in ("normal_modes", "rattled", "stretched")}
    return replace(sampling, md_share=0.0, **few)


@dataclass(frozen=True)
class Conformer:
    """A geometry from RDKit, with bonds and vibrations of its classical force field.

    Attributes:
        atoms: at the minimum of the force field.
        bonds: pairs of atoms whose bond is in no ring, each with the atoms on the side of the second.
        modes: [n_modes, n_atoms, 3] Å/√K, thermal displacements at 1 K along each vibration.
    """

    atoms: Atoms
    bonds: list[tuple[int, int, list[int]]]
    modes: Array


def make_conformer(smiles: str, rng: np.random.Generator) -> Conformer:
    """Make a random conformer (ETKDG), relaxed by MMFF94, or by UFF where MMFF94 has no parameters.

    Riniker & Landrum, doi:10.1021/acs.jcim.5b00654; Halgren, doi:10.1002/(SICI)1096-987X(199604)17:5/6<490.

    Raises:
        SamplingError: RDKit finds no geometry.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDistGeom

    with rdBase.BlockLogs():
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        parameters: Any = rdDistGeom.ETKDGv3()
        parameters.randomSeed = int(rng.integers(2**31))
        if rdDistGeom.EmbedMolecule(molecule, parameters) < 0:
            parameters.useRandomCoords = True
            if rdDistGeom.EmbedMolecule(molecule, parameters) < 0:
                raise SamplingError("no conformer")
        field = _force_field(molecule)
        if field is not None:
            field.Minimize(maxIts=1000)
    atoms = Atoms([atom.GetAtomicNum() for atom in molecule.GetAtoms()], molecule.GetConformer().GetPositions())
    modes = np.zeros((0, len(atoms), 3))
    if field is not None:
        modes = thermal_modes(lambda x: KCAL_PER_MOL * np.array(field.CalcGrad(x.ravel().tolist())), atoms)
    return Conformer(atoms, _open_bonds(molecule), modes)


def _force_field(molecule: Any) -> Any:
    from rdkit.Chem import rdForceFieldHelpers

    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(molecule):
        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule)
        return rdForceFieldHelpers.MMFFGetMoleculeForceField(molecule, properties)
    if rdForceFieldHelpers.UFFHasAllMoleculeParams(molecule):
        return rdForceFieldHelpers.UFFGetMoleculeForceField(molecule)
    return None


def _open_bonds(molecule: Any) -> list[tuple[int, int, list[int]]]:
    bonds = []
    for bond in molecule.GetBonds():
        if not bond.IsInRing():
            begin, end = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            side, queue = {end}, [end]
            while queue:
                for neighbour in molecule.GetAtomWithIdx(queue.pop()).GetNeighbors():
                    if neighbour.GetIdx() not in side | {begin}:
                        side.add(neighbour.GetIdx())
                        queue.append(neighbour.GetIdx())
            bonds.append((begin, end, sorted(side)))
    return bonds


def thermal_modes(gradient: Callable[[Array], Array], atoms: Atoms) -> Array:
    """Compute classical displacements at 1 K along each normal mode.

    In a harmonic potential the mass-weighted coordinate of a mode with eigenvalue λ has the variance kT/λ.

    Args:
        gradient: gradient of the potential, positions [n_atoms, 3] Å → [3 n_atoms] eV/Å.
        atoms: at a minimum of the potential.

    Returns:
        [n_modes, n_atoms, 3] Å/√K.
    """
    n = 3 * len(atoms)
    step = 1e-3
    hessian = np.zeros((n, n))
    for index in range(n):
        shift = np.zeros(n)
        shift[index] = step
        plus, minus = (gradient(atoms.positions + sign * shift.reshape(-1, 3)) for sign in (1, -1))
        hessian[index] = (plus - minus) / (2 * step)
    root_mass = np.sqrt(np.repeat(atoms.get_masses(), 3))
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T) / np.outer(root_mass, root_mass))
    vibrations = values > 1e-3 * SOFTEST  # not translations and rotations
    amplitudes = np.sqrt(units.kB / np.maximum(values[vibrations], SOFTEST))
    displacements: Array = (vectors[:, vibrations] * amplitudes / root_mass[:, None]).T.reshape(-1, len(atoms), 3)
    return displacements


def sample_molecule(
    smiles: str, sampling: Sampling, teacher: Callable[[], Any], rng: np.random.Generator
) -> list[tuple[Origin, Atoms]]:
    """Sample all structures of one molecule except pairs.

    Raises:
        SamplingError: there is no geometry to start from.
    """
    start = make_conformer(smiles, rng)
    relaxed = start.atoms.copy()
    relaxed.calc = teacher()
    try:
        BFGS(relaxed, logfile=None).run(fmax=0.05, steps=60)
    except CalculationFailed:
        raise SamplingError("relaxation failed") from None
    structures: list[tuple[Origin, Atoms]] = [("relaxed", relaxed.copy())]
    for _ in range(sampling.normal_modes):
        weights = np.sqrt(rng.uniform(100, 1500)) * rng.normal(size=len(start.modes))
        structures.append(("normal_modes", _moved(relaxed, np.tensordot(weights, start.modes, axes=1))))
    for _ in range(sampling.rattled):
        noise = rng.normal(scale=rng.uniform(0.02, 0.15), size=relaxed.positions.shape)
        structures.append(("rattled", _moved(relaxed, noise)))
    for _ in range(sampling.stretched if start.bonds else 0):
        begin, end, side = start.bonds[rng.integers(len(start.bonds))]
        displacement = rng.normal(scale=SMALL_NOISE_ANG, size=relaxed.positions.shape)
        bond = relaxed.positions[end] - relaxed.positions[begin]
        displacement[side] += (rng.uniform(0.8, 1.7) - 1) * bond
        structures.append(("stretched", _moved(relaxed, displacement)))
    if rng.uniform() < sampling.md_share:
        structures += [("teacher_md", frame) for frame in run_dynamics(relaxed, sampling, teacher, rng)]
    return structures


def sample_pairs(smiles: Sequence[str], rng: np.random.Generator) -> list[tuple[Origin, Atoms]]:
    """Place the molecules in pairs next to each other."""
    parts = [make_conformer(one, rng).atoms for one in smiles]
    gaps = rng.uniform(*GAPS_ANG, size=len(parts) // 2)
    pairs = zip(parts[::2], parts[1::2], gaps, strict=True)
    return [("dimer", place_molecules([a, b], gap, rng)) for a, b, gap in pairs]


def sample_water(
    n_molecules: int, sampling: Sampling, teacher: Callable[[], Any], rng: np.random.Generator
) -> list[tuple[Origin, Atoms]]:
    """Sample frames of teacher MD of a water cluster."""
    cluster = place_molecules([make_conformer("O", rng).atoms for _ in range(n_molecules)], WATER_GAP_ANG, rng)
    return [("water", frame) for frame in run_dynamics(cluster, sampling, teacher, rng)]


def run_dynamics(start: Atoms, sampling: Sampling, teacher: Callable[[], Any], rng: np.random.Generator) -> list[Atoms]:
    """Run Langevin dynamics with steps of 1 fs and return frames; frames before a failure of the teacher are kept."""
    atoms = start.copy()
    atoms.calc = teacher()
    thermalize_momenta(atoms, sampling.md_temperatures_k[0], rng=rng)
    frames: list[Atoms] = []
    try:
        for temperature_k in sampling.md_temperatures_k:
            # fixcm=True, the default, would keep a small molecule far above the requested temperature.
            langevin = Langevin(
                atoms, units.fs, temperature_K=temperature_k, friction=0.02 / units.fs, fixcm=False, rng=rng
            )
            for _ in range(sampling.md_frames):
                langevin.run(sampling.md_stride)
                frames.append(atoms.copy())
    except CalculationFailed:
        pass
    return frames


def place_molecules(parts: Sequence[Atoms], gap: float, rng: np.random.Generator) -> Atoms:
    """Place molecules in random orientation, each about ``gap`` Å from the nearest atom of the previous ones."""
    cluster = parts[0].copy()
    for part in parts[1:]:
        new = part.copy()
        new.positions += rng.normal(scale=SMALL_NOISE_ANG, size=new.positions.shape)
        new.euler_rotate(*rng.uniform(0, 360, size=3), center="COM")
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        new.positions += cluster.get_center_of_mass() - new.get_center_of_mass()
        while np.linalg.norm(cluster.positions[:, None] - new.positions[None], axis=-1).min() < gap:
            new.positions += 0.1 * direction
        cluster += new
    return cluster


def _moved(atoms: Atoms, displacement: Array) -> Atoms:
    moved: Atoms = atoms.copy()
    moved.positions += displacement
    return moved
