"""Options of systems."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from mlff_exp.config.checks import choose, is_file, limited, plain, shown, within_limits
from mlff_exp.config.errors import ConfigError

# Names in ASE's g2 collection.
G2_MOLECULES = {
    "benzene": "C6H6",
    "ethanol": "CH3CH2OH",
    "water": "H2O",
    "carbon_dioxide": "CO2",
    "ammonia": "NH3",
    "methane": "CH4",
    "acetamide": "CH3CONH2",
    "pyridine": "C5H5N",
}
# Files of the package; its structures/standard/README.md says where they come from.
OWN_MOLECULES = ("aspirin", "paracetamol", "alanine_dipeptide")
MOLECULES = (*G2_MOLECULES, *OWN_MOLECULES)
# Crystals, with the number of atoms in their cubic or, for ice, orthorhombic cell.
CRYSTALS = {"silicon": 8, "copper": 4, "nacl": 8, "ice": 24}
COLD_CRYSTALS_K = {"ice": 200.0}  # that melt below 300 K, and the temperature at which they move by default
# Relaxed molecules of the shipped validation set, which no student was trained on: unseen_0, unseen_1, …
N_UNSEEN = 200
UNSEEN = "unseen_"


def choose_molecule(key: str, name: str) -> None:
    """Refuse a name that is no built-in molecule.

    Args:
        key: key of the name.
        name: the name.

    Raises:
        ConfigError: the name is unknown; the message lists the legal names.
    """
    number = name.removeprefix(UNSEEN)
    # Compared as text, so that a number has one spelling in labels.
    if number == name or number not in map(str, range(N_UNSEEN)):
        choose(key, name, MOLECULES, f"{UNSEEN}0 … {UNSEEN}{N_UNSEEN - 1}")


@dataclass
class MoleculeSystem:
    """A molecule by name: a common molecule, or one of the validation set."""

    name: str = MISSING

    def __post_init__(self) -> None:
        choose_molecule("system.name", self.name)


@dataclass
class FileSystem:
    """A structure from a file. Constraints in the file are left out, so that all atoms move.

    Attributes:
        name: name in labels and names of files; "file" takes the name of the file.
        path: path of the file.
        index: number of the frame, from 0, or from the end by -1; "all", or a slice as "0:10:2", for several systems.
        ignore_charge: whether to ignore charge, spin and magnetic moments and evaluate the neutral singlet.
    """

    name: str = "file"
    path: str = MISSING
    index: int | str = -1
    ignore_charge: bool = False

    def __post_init__(self) -> None:
        if self.name == "file":
            self.name = re.sub(r"[^A-Za-z0-9_-]", "_", Path(self.path).stem) or self.name
        plain("system.name", self.name)
        if not is_file(self.path):
            raise ConfigError(f"system.path={shown(repr(self.path))} is not a file")
        _ = self.chosen

    @property
    def chosen(self) -> int | slice:
        """The index as a number or a slice.

        Raises:
            ConfigError: the index is neither a number, a slice nor "all".
        """
        text = str(self.index)
        if text == "all":
            return slice(None)
        parts = text.split(":")
        try:
            numbers = [int(part) if part.strip() else None for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) == 1 and numbers[0] is not None:
            return numbers[0]
        if len(numbers) not in (2, 3) or numbers[2:] == [0]:
            raise ConfigError(f"system.index={text!r} is neither a frame's number, a slice as 0:10:2, nor all")
        return slice(*numbers)


@dataclass
class WaterBox:
    """A periodic cube of water at 1 g/cm³.

    Attributes:
        name: name in labels and names of files.
        n_molecules: number of molecules, the cube of an integer: 8, 27, 64, 125, …
    """

    name: str = "water_box"
    n_molecules: int = limited(64, most=1_000_000)

    def __post_init__(self) -> None:
        within_limits(self, "system.")
        plain("system.name", self.name)
        if round(self.n_molecules ** (1 / 3)) ** 3 != self.n_molecules:
            raise ConfigError(
                f"system.n_molecules={self.n_molecules} is not the cube of a whole number: 8, 27, 64, 125"
            )

    @property
    def n_atoms(self) -> int:
        """How many atoms the box has."""
        return 3 * self.n_molecules


@dataclass
class Crystal:
    """A periodic crystal by name.

    Attributes:
        supercell: how many cells stand side by side along each of the three vectors.
    """

    name: str = MISSING
    supercell: int = limited(2, most=100)

    def __post_init__(self) -> None:
        within_limits(self, "system.")
        choose("system.name", self.name, tuple(CRYSTALS))

    @property
    def n_atoms(self) -> int:
        """How many atoms the supercell has."""
        return CRYSTALS[self.name] * self.supercell**3


System = MoleculeSystem | FileSystem | WaterBox | Crystal
