"""Read what ASE ignores in molfiles and SDF; unknown lines are refused."""

from __future__ import annotations

import re

from mlff_exp.structures.keys import refuse_unread
from mlff_exp.structures.reading.text import ADVICE, NUMBER, Declared, is_element

# The charge field of an atom's line in a molfile; a line "M  CHG" overrules it. 4 is a doublet radical.
MOL_CHARGES = {1: 3, 2: 2, 3: 1, 5: -1, 6: -2, 7: -3}
MOL_RADICAL = 4
SDF_FIELD = re.compile(r"(?m)^>.*<([^>]*)>.*\n(.*)")
# Lines of a molfile that change neither atoms nor charges, beside those that are read.
MOL_HARMLESS = re.compile(r"M  (?:END|S[A-Z]{2}|CHG|ISO|RAD)\b")
BOND = re.compile(r"[\s\d]+", re.ASCII)
COUNTS = re.compile(r"[ \d]{2}\d[ \d]{2}\d", re.ASCII)


def read_mol(text: str) -> Declared:
    """Read the charge of a molfile or of the only record of an SDF.

    Raises:
        ValueError: there are several molecules, isotopes, radicals, a drawing, or a line that is not known.
    """
    molecules = [molecule for molecule in re.split(r"(?m)^\$\$\$\$.*$", text) if molecule.strip()]
    if len(molecules) > 1:
        raise ValueError(
            f"it has {len(molecules)} molecules, and ASE reads only the first: convert the file to extxyz, where "
            "system.index selects"
        )
    lines = molecules[0].splitlines() if molecules else []
    if len(lines) < 4 or not COUNTS.match(lines[3]) or "V3000" in lines[3].upper():
        raise ValueError("its fourth line does not begin with two counts of three columns, or is not of V2000")
    if lines[1][20:22].upper() == "2D":
        raise ValueError("it is a drawing (2D in its second line) and no geometry: make three-dimensional positions")
    n_atoms, n_bonds = int(lines[3][:3]), int(lines[3][3:6])
    atoms, bonds, others = lines[4 : 4 + n_atoms], lines[4 + n_atoms :][:n_bonds], lines[4 + n_atoms + n_bonds :]
    if len(atoms) < n_atoms or len(bonds) < n_bonds:
        raise ValueError(f"it has fewer lines than its {n_atoms} atoms and {n_bonds} bonds need")
    for number, line in enumerate(atoms):
        _check_atom(number, line)
    for line in bonds:
        if not BOND.fullmatch(line):
            raise ValueError(f"its line {line.strip()[:30]!r} is among the {n_bonds} bonds, and is none")
    fields = [int(line[36:39]) for line in atoms if line[36:39].strip().isdigit()]
    if MOL_RADICAL in fields:
        raise ValueError(f"the line of atom {fields.index(MOL_RADICAL)} is a radical, and {ADVICE}")
    end = next((place for place, line in enumerate(others) if line.startswith("M  END")), len(others))
    by_property = [charge for line in others[:end] for charge in _charges(line)]
    refuse_unread(dict(SDF_FIELD.findall("\n".join(others[end:]))), (), 0)
    return Declared(sum(by_property or [MOL_CHARGES.get(field, 0) for field in fields]), n_atoms=n_atoms)


def _check_atom(number: int, line: str) -> None:
    """Refuse a line whose three columns of ten are not the numbers that ASE reads, and isotopes."""
    words = line.split()
    columns = [line[start : start + 10].strip() for start in (0, 10, 20)]
    if len(words) < 4 or words[:3] != columns or not all(NUMBER.fullmatch(word) for word in columns):
        raise ValueError(f"the line of atom {number} does not begin with three numbers of ten columns: {line[:40]!r}")
    if not is_element(words[3]) or line[31:34].strip() != words[3]:
        raise ValueError(f"the line of atom {number} has {line[31:34].strip()!r} in columns 32 to 34: no element")
    if line[34:36].strip() not in ("", "0"):
        raise ValueError(f"the line of atom {number} has a mass difference {line[34:36].strip()!r}, and {ADVICE}")


def _charges(line: str) -> list[int]:
    """Return the charges of a line of properties."""
    words = line.upper().split()
    if words and not MOL_HARMLESS.match(line):
        raise ValueError(f"its line {line.strip()[:30]!r} is not read, and {ADVICE}")
    if words[:2] in (["M", "ISO"], ["M", "RAD"]):
        raise ValueError(f"a line 'M  {words[1]}' gives isotopes or radicals, and {ADVICE}")
    if words[:2] != ["M", "CHG"]:
        return []
    numbers = [int(word) for word in words[2:] if re.fullmatch(r"[+-]?\d+", word, re.ASCII)]
    if len(words) < 3 or len(numbers) != len(words) - 2 or len(numbers) != 1 + 2 * numbers[0]:
        raise ValueError(f"its line {line.strip()[:30]!r} does not give as many charges as it says")
    return numbers[2::2]
