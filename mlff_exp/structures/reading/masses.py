"""Masses of a structure: a column of the file becomes the masses, and isotopes in other words are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from mlff_exp.structures.keys import plain_key

# Names of columns, in the form that `plain_key` returns.
MASS_COLUMNS = ("mass", "masses", "atomicmass", "atomicmasses", "atommass")
ISOTOPE_PARTS = ("isotop", "massnumber", "nucleonnumber")
NATURAL_WORDS = ("", "natural", "none", "false")
LIGHTEST_U, HEAVIEST_U = 0.5, 400.0


def set_masses(atoms: Atoms) -> None:
    """Take the masses from a column of them, in place.

    Raises:
        ValueError: a mass is illegal, or isotopes or masses are given in words that are not read.
    """
    for key, value in atoms.info.items():
        _refuse_isotopes(key, value)
        # The mass of the molecule is one number, and changes nothing.
        if "mass" in plain_key(key) and np.size(value) > 1 and "cent" not in plain_key(key):
            raise ValueError(f"its masses are in the comment as {key!r}, which is not read: give a column 'mass'")
    for key, value in atoms.arrays.items():
        _refuse_isotopes(key, value)
        if "mass" in plain_key(key) and plain_key(key) not in MASS_COLUMNS:
            raise ValueError(f"its masses are in the column {key!r}, which is not read: name it 'mass'")
    given = {key: np.asarray(atoms.arrays[key]) for key in atoms.arrays if plain_key(key) in MASS_COLUMNS}
    for key, masses in given.items():
        if masses.dtype.kind not in "iuf" or masses.shape != (len(atoms),):
            raise ValueError(f"its column {key!r} is not one number for each atom")
        bad = np.flatnonzero(~((masses >= LIGHTEST_U) & (masses <= HEAVIEST_U)))
        if len(bad):
            legal = f"legal masses are {LIGHTEST_U:g} to {HEAVIEST_U:g} u"
            raise ValueError(f"the mass of atom {bad[0]} is {masses[bad[0]]:g} u; {legal}")
    for key, masses in given.items():
        if not np.array_equal(next(iter(given.values())), masses):
            raise ValueError(f"its columns {next(iter(given))!r} and {key!r} differ")
    for key, masses in given.items():
        if key != "masses":
            del atoms.arrays[key]
        atoms.set_masses(masses.astype(np.float64))


def _refuse_isotopes(key: str, value: Any) -> None:
    plain = plain_key(key)
    if not any(part in plain for part in ISOTOPE_PARTS) or "monoisotop" in plain:
        return
    values = np.asarray(value)
    is_natural = not values.any() if values.dtype.kind in "iufb" else str(value).strip().lower() in NATURAL_WORDS
    if not is_natural:
        raise ValueError(f"it gives isotopes by {key!r}, which is not read: give masses in a column 'mass'")
