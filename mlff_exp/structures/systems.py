"""Build `ase.Atoms` from the configuration of a system."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read

from mlff_exp.common import expand_home
from mlff_exp.config import (
    G2_MOLECULES,
    UNSEEN,
    ConfigError,
    Crystal,
    FileSystem,
    MoleculeSystem,
    System,
    WaterBox,
)
from mlff_exp.structures.datasets import ORIGINS, VALIDATION, Dataset
from mlff_exp.structures.electrons import make_neutral_singlet
from mlff_exp.structures.reading.frames import StructureError, read_frames

STANDARD = Path(__file__).resolve().parent / "standard"  # its README.md says where the structures come from
WATER_SPACING_ANG = 3.104  # edge of the cube that one molecule fills at 1 g/cm³


def build_systems(system: System) -> dict[str, Atoms]:
    """Build the structures of a configuration, by name, without calculators and constraints.

    There is one structure, with the name of the system. If ``system.index`` selects several frames of a file, there is
    one for each frame, and its name ends with the number of the frame.

    Raises:
        ConfigError: a file gives no structure, or one that no force field can evaluate.
    """
    match system:
        case MoleculeSystem():
            return {system.name: _molecule(system.name)}
        case WaterBox():
            return {system.name: water_box(system.n_molecules)}
        case Crystal():
            return {system.name: _unit_cell(system.name).repeat(system.supercell)}
        case FileSystem():
            return _read(system)


def _molecule(name: str) -> Atoms:
    if name.startswith(UNSEEN):
        return unseen_molecule(int(name.removeprefix(UNSEEN)))
    return molecule(G2_MOLECULES[name]) if name in G2_MOLECULES else _standard(name)


def _unit_cell(name: str) -> Atoms:
    """Build the cubic cell of a crystal with its measured lattice constant; for ice the orthorhombic one."""
    match name:
        case "silicon":
            return bulk("Si", "diamond", a=5.431, cubic=True)
        case "copper":
            return bulk("Cu", "fcc", a=3.615, cubic=True)
        case "nacl":
            return bulk("NaCl", "rocksalt", a=5.640, cubic=True)
    return _standard(name)


def _standard(name: str) -> Atoms:
    atoms = read(STANDARD / f"{name}.extxyz", format="extxyz")
    assert isinstance(atoms, Atoms), "the file holds one structure"
    return atoms


def unseen_molecule(number: int) -> Atoms:
    """Return a molecule of the validation set in the geometry that the teacher relaxed."""
    dataset = Dataset.load(VALIDATION)
    relaxed = np.flatnonzero(dataset.origin == ORIGINS.index("relaxed"))
    return dataset.atoms(int(relaxed[number]))


def water_box(n_molecules: int) -> Atoms:
    """Build a periodic box of water at 1 g/cm³: randomly rotated molecules on a cubic lattice, the same every time."""
    edge = round(n_molecules ** (1 / 3))
    rng = np.random.default_rng(0)
    box = Atoms(cell=[edge * WATER_SPACING_ANG] * 3, pbc=True)
    for site in np.ndindex(edge, edge, edge):
        water = molecule("H2O")
        water.euler_rotate(*rng.uniform(0, 360, size=3), center="COM")
        water.positions += (np.array(site) + 0.5) * WATER_SPACING_ANG - water.get_center_of_mass()
        box += water
    return box


def _read(system: FileSystem) -> dict[str, Atoms]:
    chosen = system.chosen
    try:
        frames = read_frames(expand_home(system.path), chosen)
    except StructureError as error:
        raise ConfigError(f"system.path={system.path!r}: {error}") from error
    if system.ignore_charge:
        for atoms in frames.values():
            make_neutral_singlet(atoms)
    if isinstance(chosen, int):
        return dict(zip([system.name], frames.values(), strict=True))
    return {f"{system.name}_{number}": atoms for number, atoms in frames.items()}
