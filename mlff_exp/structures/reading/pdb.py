"""Read what ASE ignores in PDB files; unknown records are refused."""

from __future__ import annotations

import re

from mlff_exp.structures.reading.text import ADVICE, NUMBER, Declared, is_element

ATOMS = ("ATOM  ", "HETATM")
# Records that change neither the atoms nor the cell, by the first six columns of a line.
HARMLESS = {
    "ANISOU", "AUTHOR", "CAVEAT", "CISPEP", "COMPND", "CONECT", "CRYST1", "DBREF", "DBREF1", "DBREF2", "END",
    "ENDMDL", "EXPDTA", "FORMUL", "FTNOTE", "HEADER", "HELIX", "HET", "HETNAM", "HETSYN", "HYDBND", "JRNL", "KEYWDS",
    "LINK", "MASTER", "MDLTYP", "MODEL", "MODRES", "NUMMDL", "OBSLTE", "ORIGX1", "ORIGX2", "ORIGX3", "REMARK",
    "REVDAT", "SCALE1", "SCALE2", "SCALE3", "SEQADV", "SEQRES", "SHEET", "SIGATM", "SIGUIJ", "SITE", "SLTBRG",
    "SOURCE", "SPLIT", "SPRSDE", "SSBOND", "TER", "TITLE", "TURN",
}  # fmt: skip
HEAVY_WATERS = ("DOD", "D2O", "DO2", "TOD", "T3O")
CHARGE = re.compile(r"(\d)([+-])|([+-])(\d)", re.ASCII)


def read_pdb(text: str) -> Declared:
    """Read the charges of the first model: columns 77 and 78 hold the element, 79 and 80 the charge, as 1+ or +1.

    Raises:
        ValueError: there are isotopes, alternatives, atoms that ASE leaves out, symmetry, or a record that is not
            known.
    """
    charge, alternatives = 0, set()
    models = re.split(r"(?m)^END.*$", text)
    if len(models) > 1 and re.search(r"(?m)^(?:ATOM|HETATM)", models[-1]):
        raise ValueError("it has atoms after the last line END, which ASE leaves out")
    for line in models[0].splitlines():
        if line.startswith(ATOMS):
            _check_atom(line)
            alternatives.add(line[16:17].strip())
            charge += _charge(line)
        elif line.strip():
            _check_record(line)
    if len(alternatives - {""}) > 1:
        raise ValueError("it has alternative positions of atoms (column 17): choose one of them")
    return Declared(charge)


def _check_record(line: str) -> None:
    group = line[55:66].replace(" ", "")
    if line.startswith("CRYST1") and group not in ("", "P1"):
        raise ValueError(f"its space group is {line[55:66].strip()}, and ASE makes no atoms by symmetry: write all")
    if line.startswith("MTRIX") and line[59:60] != "1":
        raise ValueError(f"its record {line[:6].strip()} makes atoms by symmetry, and ASE makes none: write all")
    if line[:6].strip() not in HARMLESS and not line.startswith("MTRIX"):
        raise ValueError(
            f"its line {line.strip()[:30]!r} is not read: it does not begin with the name of a record in its "
            "first six columns"
        )


def _check_atom(line: str) -> None:
    element, name, serial = line[76:78].strip().upper(), line[12:16].strip().upper(), line[6:11].strip()
    by_name = name.lstrip("0123456789")[:1]
    if element in ("D", "T") or element[:1].isdigit() or line[17:20].strip().upper() in HEAVY_WATERS:
        raise ValueError(f"it has atoms of the isotope {element} in the residue {line[17:20].strip()!r}, and {ADVICE}")
    if not element:
        raise ValueError(
            f"the line of atom {serial} has no element in columns 77 and 78, and its name "
            f"{line[12:16]!r} may mean several: write the element, or convert the file to extxyz"
        )
    if not is_element(element.capitalize()):
        raise ValueError(f"the line of atom {serial} has {element!r} in columns 77 and 78: no element")
    if element == "H" and by_name in ("D", "T"):
        raise ValueError(f"the name {name} of atom {serial} is that of an isotope, and its element is H, and {ADVICE}")
    columns = [line[start : start + 8].strip() for start in (30, 38, 46)]
    if not all(NUMBER.fullmatch(column) for column in columns):
        raise ValueError(f"the line of atom {serial} has no three numbers in columns 31 to 54: {line[30:54]!r}")


def _charge(line: str) -> int:
    given = line[78:].split(None, 1)[0] if line[78:80].strip() else ""
    if field := CHARGE.fullmatch(line[78:80]):
        return int((field[2] or field[3]) + (field[1] or field[4]))
    if given not in ("", "0"):
        raise ValueError(
            f"the line of atom {line[6:11].strip()} has {line[78:].rstrip()!r} in columns 79 and 80, which is no "
            "charge as 1+ or 2-"
        )
    return 0
