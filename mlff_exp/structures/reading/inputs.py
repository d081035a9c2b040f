"""Read what ASE ignores in inputs of Turbomole, Gaussian and VASP; unknown words are refused."""

from __future__ import annotations

import re

from mlff_exp.structures.reading.text import ADVICE, NUMBER, Declared, check_numbers, is_element

TURBOMOLE_GROUPS = {"coord", "end", "eht", "user-defined", "intdef", "redundant", "title"}
GAUSSIAN_ROUTE = re.compile(r"\bunits?\b[^\n]*|\bmassage\b|\bread-?iso\w*|\bgeom\b[^\n]*|\bcharge\b")


def read_turbomole(text: str) -> Declared:
    """Read a coord file of Turbomole or xtb: charge and unpaired electrons stand in ``$eht``.

    Raises:
        ValueError: there is a group that is not read, as ``$coord angs`` or ``$chrg``.
    """
    groups = re.findall(r"(?m)^[ \t]*\$([^\n$]*)((?:\n(?![ \t]*\$)[^\n]*)*)", text.lower())
    charge, unpaired, n_atoms = 0, 0, 0
    for head, body in groups:
        words = head.split()
        name = words[0] if words else ""
        if name not in TURBOMOLE_GROUPS:
            legal = ", ".join(f"${group}" for group in sorted(TURBOMOLE_GROUPS))
            raise ValueError(f"it has the group '${head.strip()}', and legal ones are {legal}: {ADVICE}")
        if name == "coord":
            if not re.fullmatch(r"coord(?:\s+natoms=\s*\d+)?", head.strip()):
                raise ValueError(f"it has '${head.strip()}', and ASE reads '$coord' in Bohr only: convert the file")
            if n_atoms:
                raise ValueError("it has the group $coord twice")
            rows = [line.split() for line in body.splitlines() if line.strip()]
            n_atoms = len(rows)
            for row in rows:
                _check_turbomole_row(row)
        if name == "eht":
            found = dict(re.findall(r"(charge|unpaired)\s*=\s*([+-]?\d+)\b", head + body))
            if re.sub(r"(charge|unpaired)\s*=\s*[+-]?\d+\b", "", head + body).split() != ["eht"]:
                raise ValueError(f"it has '${head.strip()}', which is not read: write $eht charge=1 unpaired=0")
            charge, unpaired = int(found.get("charge", 0)), abs(int(found.get("unpaired", 0)))
    return Declared(charge, unpaired + 1, n_atoms)


def _check_turbomole_row(row: list[str]) -> None:
    """Refuse a line of an atom that is not three numbers, the symbol of an element and f for one that is fixed."""
    check_numbers(row[:3])
    numbers = len(row) in (4, 5) and all(NUMBER.fullmatch(word) for word in row[:3])
    if not numbers or not is_element(row[3].capitalize()) or row[4:] not in ([], ["f"]):
        raise ValueError(f"its line {' '.join(row)[:60]!r} is not three numbers and the symbol of an element")


def read_gaussian(text: str) -> Declared:
    """Read charge and multiplicity of an input of Gaussian, and count its atoms.

    Raises:
        ValueError: it has several jobs, isotopes, units, fragments with charges, or a geometry from elsewhere.
    """
    plain = re.sub(r"![^\n]*", "", text.lower())
    if "--link1--" in plain:
        raise ValueError("it has several jobs (--Link1--): keep one of them")
    if found := re.search(r"\b(?:iso|znuc)\s*=", plain):
        raise ValueError(f"{found[0].strip()!r} gives masses or charges of nuclei, and {ADVICE}")
    sections = [part.strip().splitlines() for part in re.split(r"\n[ \t]*\n", plain) if part.strip()]
    route = " ".join(line for line in sections[0] if not line.strip().startswith("%")) if sections else ""
    if found := GAUSSIAN_ROUTE.search(route):
        raise ValueError(f"its route has {found[0].strip()[:40]!r}, and {ADVICE}")
    molecule = sections[2] if len(sections) > 2 else [""]
    for line in molecule[1:]:
        _check_gaussian_line(line)
    numbers = re.split(r"[\s,]+", molecule[0].strip())
    if len(numbers) < 2 or not all(re.fullmatch(r"[+-]?\d+", number) for number in numbers):
        raise ValueError("its third part does not begin with charge and multiplicity")
    if len(numbers) > 2 and set(zip(numbers[::2], numbers[1::2], strict=False)) != {("0", "1")}:
        raise ValueError(f"its fragments have charges or spins ({molecule[0].strip()}), and {ADVICE}")
    n_vectors = sum(1 for line in molecule[1:] if line.split()[0] == "tv")
    return Declared(int(numbers[0]), int(numbers[1]), len(molecule) - 1 - n_vectors)


def _check_gaussian_line(line: str) -> None:
    """Refuse any form of an atom but its symbol with three numbers."""
    symbol, *numbers = line.split() or [""]
    check_numbers(numbers)
    known = symbol == "tv" or is_element(symbol.capitalize())
    if not known or len(numbers) != 3 or not all(NUMBER.fullmatch(number) for number in numbers):
        raise ValueError(
            f"its line {line.strip()[:40]!r} is not the symbol of an element with three numbers, or Tv with three "
            f"numbers, and {ADVICE}"
        )


def read_poscar(text: str) -> Declared:
    """Check the head of a POSCAR, and count its lines of atoms: those from Direct or Cartesian to the first other.

    Raises:
        ValueError: the factor, the vectors, the elements or the counts are not as VASP 5 writes them.
    """
    lines = text.splitlines()
    rows = [line.split("!")[0].split("#")[0].split() for line in lines]
    _check_poscar_head(rows[:7])
    check_numbers(word for row in rows[7:] for word in row[:3])
    for start, line in enumerate(lines[6:9], start=7):
        if line.strip()[:1].lower() in ("d", "c", "k"):
            count = 0
            while start + count < len(lines) and re.match(r"(?:\s*[-+]?[\d.]\S*){3}", lines[start + count]):
                count += 1
            return Declared(n_atoms=count)
    return Declared()


def _check_poscar_head(rows: list[list[str]]) -> None:
    if len(rows) < 7:
        return  # ASE says what is wrong
    check_numbers(word for row in [*rows[1:5], rows[6]] for word in row)
    for row in rows[2:5]:
        if len(row) != 3:
            raise ValueError(f"a vector of its cell is {' '.join(row)[:60]!r}: three numbers are legal")
    symbols = [word.split("/")[0].split("_")[0] for word in rows[5]]
    if not symbols or not all(is_element(symbol) for symbol in symbols):
        raise ValueError(f"its sixth line {' '.join(rows[5])[:60]!r} does not name elements, as VASP 5 writes them")
    if len(rows[6]) != len(symbols) or not all(re.fullmatch(r"[1-9]\d*", word, re.ASCII) for word in rows[6]):
        raise ValueError(f"its seventh line {' '.join(rows[6])[:60]!r} is not a number of atoms for each element")
