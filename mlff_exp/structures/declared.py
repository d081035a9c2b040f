"""Read charge, spin and isotopes that a file gives and that ASE's reader of its format ignores."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from ase.io.cif import parse_cif
from ase.io.formats import open_with_compression

from mlff_exp.structures.comments import check_comments
from mlff_exp.structures.inputs import read_gaussian, read_poscar, read_turbomole
from mlff_exp.structures.keys import refuse_unread
from mlff_exp.structures.text import ADVICE, Declared

# The charge field of an atom's line in a molfile; a line "M  CHG" overrules it. 4 is a doublet radical.
MOL_CHARGES = {1: 3, 2: 2, 3: 1, 5: -1, 6: -2, 7: -3}
MOL_RADICAL = 4
MOL_ATOM = re.compile(r"(?:\s*-?\d+\.\d+){3}\s+[A-Za-z*].*")
SDF_FIELD = re.compile(r"(?m)^>.*<([^>]*)>.*\n(.*)")
# Lines of a molfile that change neither atoms nor charges, beside those that are read.
MOL_HARMLESS = re.compile(r"M  (?:END|S[A-Z]{2}|CHG|ISO|RAD)\b")
COUNTS = re.compile(r"[ \d]{2}\d[ \d]{2}\d")
CIF_TYPE = re.compile(r"([A-Z][a-z]?)(?:\d*[+-]|[+-]\d*)?")
CIF_NAMES = ("_symmetry_space_group_name_h-m", "_space_group_name_h-m_alt")
CIF_NUMBERS = ("_symmetry_int_tables_number", "_space_group_it_number")
CIF_OPERATIONS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
TRICLINIC = {"P1": 1, "P-1": 2}
SAME_PLACE = 1e-3  # of a cell vector
CIF_SPECIES = ("_atom_site_type_symbol", "_atom_site_label")
EMPTY = {"", ".", "?", "0", "None"}


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
        return _read_cif(name)
    if kind not in READERS and kind != "extxyz":
        return Declared()
    with open_with_compression(name) as file:
        if kind == "extxyz":
            check_comments(file)
            return Declared()
        return READERS[kind](file.read())


def _read_mol(text: str) -> Declared:
    molecules = [molecule for molecule in re.split(r"(?m)^\$\$\$\$.*$", text) if molecule.strip()]
    if len(molecules) > 1:
        raise ValueError(
            f"it has {len(molecules)} molecules, and ASE reads only the first: convert the file to extxyz, where "
            "system.index selects"
        )
    lines = molecules[0].splitlines() if molecules else []
    by_property: list[int] = []
    if len(lines) < 4 or not COUNTS.match(lines[3]) or "V3000" in lines[3].upper():
        raise ValueError("its fourth line does not begin with two counts of three columns, or is not of V2000")
    if lines[1][20:22].upper() == "2D":
        raise ValueError("it is a drawing (2D in its second line) and no geometry: make three-dimensional positions")
    n_atoms = int(lines[3][:3])
    atoms = lines[4 : 4 + n_atoms]
    for number, line in enumerate(atoms):
        if line[34:36].strip() not in ("", "0"):
            raise ValueError(f"the line of atom {number} has a mass difference {line[34:36].strip()!r}, and {ADVICE}")
    fields = [int(line[36:39]) for line in atoms if line[36:39].strip().isdigit()]
    if MOL_RADICAL in fields:
        raise ValueError(f"the line of atom {fields.index(MOL_RADICAL)} is a radical, and {ADVICE}")
    for line in lines[4:]:
        words = line.upper().split()
        if line.startswith("M  ") and not MOL_HARMLESS.match(line):
            raise ValueError(f"its line {line.strip()[:30]!r} is not read, and {ADVICE}")
        if words[:2] == ["M", "CHG"]:
            if (
                len(words) < 3
                or not all(re.fullmatch(r"[+-]?\d+", word) for word in words[2:])
                or (len(words) != 3 + 2 * int(words[2]))
            ):
                raise ValueError(f"its line {line.strip()[:30]!r} does not give as many charges as it says")
            by_property += [int(word) for word in words[4::2]]
        elif words[:2] in (["M", "ISO"], ["M", "RAD"]):
            raise ValueError(f"a line 'M  {words[1]}' gives isotopes or radicals, and {ADVICE}")
    refuse_unread(dict(SDF_FIELD.findall("\n".join(lines))), (), 0)
    charge = sum(by_property or [MOL_CHARGES.get(field, 0) for field in fields])
    return Declared(charge, n_atoms=sum(1 for line in lines[4:] if MOL_ATOM.fullmatch(line)))


def _read_pdb(text: str) -> Declared:
    """Read the charges of the first model: columns 77 and 78 hold the element, 79 and 80 the charge, as 1+ or +1."""
    charge, alternatives = 0, set()
    models = re.split(r"(?m)^END.*$", text)
    if len(models) > 1 and re.search(r"(?m)^(?:ATOM|HETATM)", models[-1]):
        raise ValueError("it has atoms after the last line END, which ASE leaves out")
    for line in models[0].splitlines():
        group = line[55:66].replace(" ", "")
        if line.startswith("CRYST1") and group not in ("", "P1"):
            raise ValueError(f"its space group is {line[55:66].strip()}, and ASE makes no atoms by symmetry: write all")
        if not line.startswith(("ATOM", "HETATM")):
            if re.match(r"(?i)\s*(?:atom|hetatm)\b", line):
                raise ValueError(f"ASE leaves out the line {line.strip()[:30]!r}: it has to begin with ATOM or HETATM")
            continue
        element = line[76:78].strip().upper()
        if element in ("D", "T") or element[:1].isdigit():
            raise ValueError(f"it has atoms of the isotope {element}, and {ADVICE}")
        if not element:
            raise ValueError(
                f"the line of atom {line[6:11].strip()} has no element in columns 77 and 78, and its name "
                f"{line[12:16]!r} may mean several: write the element, or convert the file to extxyz"
            )
        if element.capitalize() not in atomic_numbers:
            raise ValueError(f"the line of atom {line[6:11].strip()} has {element!r} in columns 77 and 78: no element")
        alternatives.add(line[16:17].strip())
        given = line[78:].split(None, 1)[0] if line[78:80].strip() else ""
        field = re.fullmatch(r"(\d)([+-])|([+-])(\d)", line[78:80])
        if field:
            charge += int((field[2] or field[3]) + (field[1] or field[4]))
        elif given not in ("", "0"):
            raise ValueError(
                f"the line of atom {line[6:11].strip()} has {line[78:].rstrip()!r} in columns 79 and 80, which is no "
                "charge as 1+ or 2-"
            )
    if len(alternatives - {""}) > 1:
        raise ValueError("it has alternative positions of atoms (column 17): choose one of them")
    return Declared(charge)


def _read_cif(name: str) -> Declared:
    """Refuse isotopes, dummy atoms, alternatives and hydrogen atoms without positions: ASE ignores them."""
    with open_with_compression(name, "rb") as file:
        blocks = list(parse_cif(file))
    for block in blocks:
        _refuse_cif_types(block)
        _refuse_cif_symmetry(block)
        _refuse_cif_same_place(block)
        species = _column(block, *CIF_SPECIES)
        for symbol in species:
            if re.match(r"\W*\d+\W*[A-Za-z]|[A-Z][a-z]?[-(^]\d+\)?$", symbol):
                raise ValueError(f"it has atoms of the isotope {symbol}, and {ADVICE}")
        if "dum" in [flag.lower() for flag in _column(block, "_atom_site_calc_flag")]:
            raise ValueError("it has dummy atoms (_atom_site_calc_flag dum): remove them")
        groups = set(_column(block, "_atom_site_disorder_group")) - EMPTY
        if len(groups) > 1 or any(group.startswith("-") for group in groups):
            raise ValueError(
                f"it has alternative positions of atoms (_atom_site_disorder_group {', '.join(sorted(groups)[:5])}): "
                "choose one of them"
            )
        if set(_column(block, "_atom_site_attached_hydrogens")) - EMPTY:
            raise ValueError("it has hydrogen atoms without positions (_atom_site_attached_hydrogens): add them")
    return Declared()


def _refuse_cif_types(block: Any) -> None:
    """Refuse types of atoms that ASE would cut: OH to O, CA to C."""
    for symbol in _column(block, "_atom_site_type_symbol"):
        found = CIF_TYPE.fullmatch(symbol)
        isotope = re.match(r"\W*\d+\W*[A-Za-z]|[A-Z][a-z]?[-(^]\d+\)?$|[DT]$", symbol)
        if (found is None or found[1] not in atomic_numbers) and not isotope:
            raise ValueError(f"its _atom_site_type_symbol {symbol[:20]!r} is no element, with or without a charge")


def _refuse_cif_symmetry(block: Any) -> None:
    """Refuse a space group without inversion or with it alone that the number or the operations contradict."""
    names = {"".join(name.split()).upper() for name in _column(block, *CIF_NAMES)} - EMPTY
    numbers = {int(number) for number in _column(block, *CIF_NUMBERS) if number.isdigit()}
    operations = _column(block, *CIF_OPERATIONS)
    for operation in operations:
        if not re.fullmatch(r"(?i)\s*(?:[-+xyz\d/.\s]+,){2}[-+xyz\d/.\s]+", operation):
            raise ValueError(f"its operation {operation[:30]!r} can't be read")
    for name, number in TRICLINIC.items():
        said, counted = name in names, number in numbers
        others = (numbers - {number}) if said else (names - {name}) if counted else set()
        if others:
            raise ValueError(f"its space group is both {name} and {', '.join(map(str, sorted(others)))}")
        if (said or counted) and len(operations) not in (0, number):
            raise ValueError(f"its space group {name} has {number} operations, and {len(operations)} are listed")


def _refuse_cif_same_place(block: Any) -> None:
    """Refuse two atoms in one place, of which ASE keeps the first; with occupancies they are refused elsewhere."""
    if set(_column(block, "_atom_site_occupancy")) - EMPTY - {"1", "1.0"}:
        return
    from scipy.spatial import cKDTree  # it takes longer to import than most files to read

    columns = [_column(block, f"_atom_site_fract_{axis}") for axis in "xyz"]
    try:
        places = np.array([[float(text) for text in column] for column in columns]).T
    except ValueError:  # ASE says what is wrong with a number
        return
    if len(places) < 2 or not np.isfinite(places).all():
        return
    inside = places % 1.0
    inside[inside >= 1.0] = 0.0
    if pairs := cKDTree(inside, boxsize=1.0).query_pairs(SAME_PLACE):
        first, second = min(pairs)
        raise ValueError(f"its atoms {first} and {second} are in one place")


def _column(block: Any, *names: str) -> list[str]:
    values: Any = next((block[name] for name in names if name in block), [])
    return [str(value) for value in (values if isinstance(values, list) else [values])]


READERS: dict[str, Callable[[str], Declared]] = {
    "gaussian-in": read_gaussian,
    "mol": _read_mol,
    "proteindatabank": _read_pdb,
    "sdf": _read_mol,
    "turbomole": read_turbomole,
    "vasp": read_poscar,
}
