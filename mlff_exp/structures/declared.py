"""Read charge, spin and isotopes that a file gives and that ASE's reader of its format ignores."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

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
    n_atoms = int(lines[3][:3]) if len(lines) > 3 and lines[3][:3].strip().isdigit() else 0
    atoms = lines[4 : 4 + n_atoms]
    for number, line in enumerate(atoms):
        if line[34:36].strip() not in ("", "0"):
            raise ValueError(f"the line of atom {number} has a mass difference {line[34:36].strip()!r}, and {ADVICE}")
    fields = [int(line[36:39]) for line in atoms if line[36:39].strip().isdigit()]
    if MOL_RADICAL in fields:
        raise ValueError(f"the line of atom {fields.index(MOL_RADICAL)} is a radical, and {ADVICE}")
    for line in lines[4:]:
        words = line.upper().split()
        if words[:2] == ["M", "CHG"]:
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
        species = _column(block, *CIF_SPECIES)
        for symbol in species:
            if re.match(r"\W*\d+\W*[A-Za-z]|[A-Z][a-z]?[-(^]\d+\)?$", symbol):
                raise ValueError(f"it has atoms of the isotope {symbol}, and {ADVICE}")
        if "dum" in _column(block, "_atom_site_calc_flag"):
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
