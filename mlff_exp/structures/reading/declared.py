"""Read charge, spin and isotopes that a file gives and that ASE's reader of its format ignores."""

from __future__ import annotations

from collections.abc import Callable

from ase.io.formats import open_with_compression

from mlff_exp.structures.reading.cif import read_cif
from mlff_exp.structures.reading.inputs import read_gaussian, read_poscar, read_turbomole
from mlff_exp.structures.reading.molfile import read_mol
from mlff_exp.structures.reading.pdb import read_pdb
from mlff_exp.structures.reading.text import Declared
from mlff_exp.structures.reading.xyz import check_xyz


def read_declared(name: str, kind: str) -> Declared:
    """Read charge, multiplicity and number of atoms in the text of a file.

    Args:
        name: path of a file that ASE has read.
        kind: ASE's name of the format.

    Raises:
        ValueError: the file has isotopes, radicals, units, atoms, further molecules or periodic directions that ASE
            would ignore.
    """
    if kind == "cif":
        return read_cif(name)
    if kind not in READERS and kind != "extxyz":
        return Declared()
    with open_with_compression(name) as file:
        if kind == "extxyz":
            check_xyz(file)
            return Declared()
        return READERS[kind](file.read())


READERS: dict[str, Callable[[str], Declared]] = {
    "gaussian-in": read_gaussian,
    "mol": read_mol,
    "proteindatabank": read_pdb,
    "sdf": read_mol,
    "turbomole": read_turbomole,
    "vasp": read_poscar,
}
