"""Read what ASE ignores in inputs of Turbomole, Gaussian and VASP; unknown words are refused."""

from __future__ import annotations

import re

from mlff_exp.structures.text import ADVICE, Declared

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
            n_atoms = sum(1 for line in body.splitlines() if line.strip())
        if name == "eht":
            found = dict(re.findall(r"(charge|unpaired)\s*=\s*([+-]?\d+)\b", head + body))
            if re.sub(r"(charge|unpaired)\s*=\s*[+-]?\d+\b", "", head + body).split() != ["eht"]:
                raise ValueError(f"it has '${head.strip()}', which is not read: write $eht charge=1 unpaired=0")
            charge, unpaired = int(found.get("charge", 0)), abs(int(found.get("unpaired", 0)))
    return Declared(charge, unpaired + 1, n_atoms)


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
    numbers = re.split(r"[\s,]+", molecule[0].strip())
    if len(numbers) < 2 or not all(re.fullmatch(r"[+-]?\d+", number) for number in numbers):
        raise ValueError("its third part does not begin with charge and multiplicity")
    if len(numbers) > 2 and set(zip(numbers[::2], numbers[1::2], strict=False)) != {("0", "1")}:
        raise ValueError(f"its fragments have charges or spins ({molecule[0].strip()}), and {ADVICE}")
    return Declared(int(numbers[0]), int(numbers[1]), len(molecule) - 1)


def read_poscar(text: str) -> Declared:
    """Count the lines of atoms of a POSCAR: those from its line Direct or Cartesian to the next that is none."""
    lines = text.splitlines()
    for start, line in enumerate(lines[6:9], start=7):
        if line.strip()[:1].lower() in ("d", "c", "k"):
            count = 0
            while start + count < len(lines) and re.match(r"(?:\s*[-+]?[\d.]\S*){3}", lines[start + count]):
                count += 1
            return Declared(n_atoms=count)
    return Declared()
