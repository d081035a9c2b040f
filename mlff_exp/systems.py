"""From the configuration of a system to `ase.Atoms`."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.neighborlist import neighbor_list

from mlff_exp.config import MOLECULES, UNSEEN, ConfigError, FileSystem, MoleculeSystem, System, WaterBox
from mlff_exp.data import ORIGINS, VALIDATION, Dataset

COINCIDENT_ANG = 0.1  # no pair of atoms that a force field was made for comes so near
WATER_SPACING_ANG = 3.104  # edge of the cube that one molecule fills at 1 g/cm³


def build(system: System) -> Atoms:
    """The structure that a configuration describes, without a calculator; of its constraints nothing is kept.

    Raises:
        ConfigError: a file that ASE can't read, or with positions that are not finite or coincide.
    """
    match system:
        case MoleculeSystem():
            if system.name.startswith(UNSEEN):
                return unseen_molecule(int(system.name.removeprefix(UNSEEN)))
            return molecule(MOLECULES[system.name])
        case WaterBox():
            return water_box(system.n_molecules)
        case FileSystem():
            return _read(system)


def unseen_molecule(number: int) -> Atoms:
    """A molecule of the validation set, as the teacher relaxed it."""
    dataset = Dataset.load(VALIDATION)
    relaxed = np.flatnonzero(dataset.origin == ORIGINS.index("relaxed"))
    return dataset.atoms(int(relaxed[number]))


def water_box(n_molecules: int) -> Atoms:
    """Randomly turned water molecules on a cubic lattice, periodic, 1 g/cm³; the same box every time."""
    edge = round(n_molecules ** (1 / 3))
    rng = np.random.default_rng(0)
    box = Atoms(cell=[edge * WATER_SPACING_ANG] * 3, pbc=True)
    for site in np.ndindex(edge, edge, edge):
        water = molecule("H2O")
        water.euler_rotate(*rng.uniform(0, 360, size=3), center="COM")
        water.positions += (np.array(site) + 0.5) * WATER_SPACING_ANG - water.get_center_of_mass()
        box += water
    return box


def _read(system: FileSystem) -> Atoms:
    path = Path(system.path).expanduser()
    try:
        atoms = ase.io.read(path, index=system.index)
    except (ase.io.formats.UnknownFileTypeError, ValueError, IndexError, OSError, KeyError) as error:
        raise ConfigError(f"system.path={system.path!r}: ASE can't read frame {system.index} of it: {error}") from error
    assert isinstance(atoms, Atoms)
    # A fixed atom would hide its force from whoever asks ASE, but move nevertheless.
    atoms.set_constraint()
    atoms.calc = None
    lost = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1)).tolist()
    if lost:
        raise ConfigError(f"system.path={system.path!r}: positions are NaN or infinite for atoms {lost[:10]}")
    # In a cell without volume every atom meets its own images; that is refused where batches are made, as what it is.
    placed = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc & (atoms.cell.rank == 3))
    first, second, distances = neighbor_list("ijd", placed, COINCIDENT_ANG)
    if len(distances):
        raise ConfigError(
            f"system.path={system.path!r}: atoms {first[0]} and {second[0]} are {distances[0]:.3f} Å apart, "
            f"which is nearer than {COINCIDENT_ANG} Å"
        )
    return atoms
