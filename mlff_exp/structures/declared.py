"""Read charge, spin and isotopes that a file gives and that ASE's reader of its format ignores."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ase.io.cif import parse_cif
from ase.io.formats import open_with_compression

# The charge field of an atom's line in a molfile; a line "M  CHG" overrules it. 4 is a doublet radical.
MOL_CHARGES = {1: 3, 2: 2, 3: 1, 5: -1, 6: -2, 7: -3}
MOL_RADICAL = 4
CIF_SPECIES = ("_atom_site_type_symbol", "_atom_site_label")
ADVICE = "ASE ignores that: convert the file to extxyz, with masses in a column 'mass' and spin=… for a multiplicity"
NUMBER = r"\s*([+-]?\d+(?:\.\d*)?)"
# Patterns of charge, multiplicity and unpaired electrons in files of other programs; the last match in a file counts.
CHARGES = {
    "turbomole": rf"\$(?:eht|charge)\b[^$]*?\bcharge={NUMBER}",
    "gaussian-in": r"(?m)^[ \t]*([+-]?\d+)(?:,[ \t]*|[ \t]+)\d+(?:[ \t,]+[+-]?\d+)*[ \t]*$",
    "gaussian-out": rf"Charge ={NUMBER}\s+Multiplicity",
    "nwchem-in": rf"(?mi)^\s*charge{NUMBER}",
    "nwchem-out": rf"(?mi)^\s*charge\s*:{NUMBER}",
    "orca-output": rf"Total Charge\s+Charge\s+\.+{NUMBER}",
    "gamess-us-out": rf"CHARGE OF MOLECULE\s*={NUMBER}",
    "gamess-us-punch": rf"(?i)\bicharg\s*={NUMBER}",
    "espresso-in": rf"(?i)\btot_charge\s*={NUMBER}",
    "castep-castep": rf"net charge of system\s*:{NUMBER}",
    "onetep-in": rf"(?mi)^\s*charge\s*[:=]?{NUMBER}",
    "octopus-in": rf"(?i)\bexcesscharge\s*={NUMBER}",
    "abinit-in": rf"(?mi)^\s*(?:cell)?charge{NUMBER}",
    "cp2k-restart": rf"(?mi)^\s*charge{NUMBER}",
}
MULTIPLICITIES = {
    "gaussian-in": r"(?m)^[ \t]*[+-]?\d+(?:,[ \t]*|[ \t]+)(\d+)(?:[ \t,]+[+-]?\d+)*[ \t]*$",
    "gaussian-out": rf"Multiplicity ={NUMBER}",
    "nwchem-in": rf"(?mi)^\s*mult{NUMBER}",
    "nwchem-out": rf"(?mi)^\s*(?:spin )?multiplicity\s*:{NUMBER}",
    "orca-output": rf"Multiplicity\s+Mult\s+\.+{NUMBER}",
    "gamess-us-out": rf"SPIN MULTIPLICITY\s*={NUMBER}",
    "gamess-us-punch": rf"(?i)\bmult\s*={NUMBER}",
    "cp2k-restart": rf"(?mi)^\s*multiplicity{NUMBER}",
}
UNPAIRED = {
    "turbomole": rf"\$eht\b[^$]*?\bunpaired={NUMBER}",
    "espresso-in": rf"(?i)\btot_magnetization\s*={NUMBER}",
}
MASSES = {
    "gaussian-in": r"(?i)\biso\s*=",
    "castep-cell": r"(?i)\bspecies_mass\b",
    "nwchem-in": r"(?mi)^\s*[A-Z][A-Z0-9]*\s.*\bmass\s+[\d.]",
    "aims": r"(?mi)^\s*(?:isotope|mass)\b",
}
FLAGS = re.compile(r"""(?i)\bpbc\s*=\s*("[^"]*"|'[^']*'|\{[^}]*\}|\[[^]]*\]|\S+)""")
FLAG_WORDS = {"t", "f", "true", "false", "1", "0"}


@dataclass(frozen=True)
class DeclaredElectrons:
    """Charge (e) and multiplicity that a file gives; None where the file does not give it."""

    charge: float | None = None
    multiplicity: float | None = None


def read_declared(name: str, kind: str) -> DeclaredElectrons:
    """Read charge and multiplicity in the text of a file that ASE ignores.

    Args:
        name: path of a file that ASE has read.
        kind: ASE's name of the format.

    Raises:
        ValueError: the file has isotopes, radicals, further molecules or periodic directions that ASE would ignore.
    """
    if kind == "cif":
        return _read_cif(name)
    reader = READERS.get(kind)
    if reader is None and not any(kind in table for table in (CHARGES, MULTIPLICITIES, UNPAIRED, MASSES)):
        return DeclaredElectrons()
    with open_with_compression(name) as file:
        # A trajectory may be long, and only its comments matter.
        text = "".join(line for line in file if "pbc" in line.lower()) if kind == "extxyz" else file.read()
    return _read_program(text, kind) if reader is None else reader(text)


def _read_program(text: str, kind: str) -> DeclaredElectrons:
    if kind in MASSES and (found := re.search(MASSES[kind], text)):
        raise ValueError(f"{found[0].strip()!r} gives masses, and {ADVICE}")
    charge, multiplicity, unpaired = (_last(table, kind, text) for table in (CHARGES, MULTIPLICITIES, UNPAIRED))
    return DeclaredElectrons(charge, multiplicity if unpaired is None else abs(unpaired) + 1)


def _last(table: dict[str, str], kind: str, text: str) -> float | None:
    found = re.findall(table[kind], text) if kind in table else []
    return float(found[-1]) if found else None


def _read_xyz(text: str) -> DeclaredElectrons:
    """Refuse illegal words for periodic directions: ASE treats any word as true."""
    for given in FLAGS.findall(text):
        words = re.sub(r"[\"'{}\[\],]", " ", given).split()
        if len(words) not in (1, 3) or not {word.lower() for word in words} <= FLAG_WORDS:
            raise ValueError(f"pbc={given} is not legal: give one or three of T and F")
    return DeclaredElectrons()


def _read_mol(text: str) -> DeclaredElectrons:
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
    for line in lines:
        words = line.split()
        if words[:2] == ["M", "CHG"]:
            by_property += [int(word) for word in words[4::2]]
        elif words[:2] in (["M", "ISO"], ["M", "RAD"]):
            raise ValueError(f"a line 'M  {words[1]}' gives isotopes or radicals, and {ADVICE}")
    return DeclaredElectrons(sum(by_property or [MOL_CHARGES.get(field, 0) for field in fields]))


def _read_pdb(text: str) -> DeclaredElectrons:
    """Read the charges of the first model: columns 77 and 78 hold the element, 79 and 80 the charge, as 1+ or 2-."""
    charge = 0
    for line in re.split(r"(?m)^ENDMDL", text, maxsplit=1)[0].splitlines():
        if not line.startswith(("ATOM", "HETATM")):
            continue
        if (element := line[76:78].strip().upper()) in ("D", "T") or element[:1].isdigit():
            raise ValueError(f"it has atoms of the isotope {element}, and {ADVICE}")
        if found := re.fullmatch(r"(\d)([+-])", line[78:80]):
            charge += int(found[1]) * (1 if found[2] == "+" else -1)
    return DeclaredElectrons(charge)


def _read_cif(name: str) -> DeclaredElectrons:
    """Refuse isotopes: ASE reads D as hydrogen, and ignores mass numbers in symbols."""
    with open_with_compression(name, "rb") as file:
        blocks = list(parse_cif(file))
    for block in blocks:
        species: Any = next((block[key] for key in CIF_SPECIES if key in block), [])
        for symbol in [species] if isinstance(species, str) else species:
            if re.match(r"\W*\d+\W*[A-Za-z]|[A-Z][a-z]?[-(^]\d+\)?$", str(symbol)):
                raise ValueError(f"it has atoms of the isotope {symbol}, and {ADVICE}")
    return DeclaredElectrons()


READERS: dict[str, Callable[[str], DeclaredElectrons]] = {
    "extxyz": _read_xyz,
    "mol": _read_mol,
    "proteindatabank": _read_pdb,
    "sdf": _read_mol,
}
