"""Read the text of an xyz file, and refuse what ASE ignores or takes for something else in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from ase.data import atomic_numbers
from ase.formula import Formula
from ase.io.extxyz import key_val_str_to_dict

from mlff_exp.structures.keys import plain_key, words_of
from mlff_exp.structures.reading.text import NUMBER, check_numbers

FLAGS = re.compile(r"""(?i)\bpbc\s*=\s*("[^"]*"|'[^']*'|\{[^}]*\}|\[[^]]*\]|\S+)""")
FLAG_WORDS = {"t", "f", "true", "false", "1", "0"}
LATTICE = re.compile(r"""\bLattice\s*=\s*("[^"]*"|'[^']*'|\{[^}]*\}|\[[^]]*\]|\S+)""")
PROPERTIES = re.compile(r"""\bProperties\s*=\s*["']?([^\s"']+)""")
PLAIN_COLUMNS = "species:S:1:pos:R:3"  # of a file without Properties
# Names of columns, in the form that `plain_key` returns, that say where the atoms are or what they are.
OF_SPECIES = {"species", "symbol", "symbols", "element", "elements", "z", "numbers", "atomicnumber", "atomicnumbers"}
OF_PLACES = {"pos", "position", "positions", "coord", "coords", "coordinate", "coordinates", "xyz", "cartesian"}
SAME_ANG = 1e-4
QUOTED = re.compile(r"""\\.|"[^"]*"|'[^']*'|\{[^}]*\}|\[[^]]*\]""")
PAIR = re.compile(r"\s*([+-]?\d{1,2})(?:\s+|\s*,\s*)(\d{1,2})\s*")
LENGTHS = {
    "bohr", "bohrs", "a0", "au", "a.u", "atomic", "nm", "nanometer", "nanometers", "nanometre", "nanometres", "pm",
    "picometer", "picometers", "picometre", "picometres", "frac", "fractional", "scaled", "reduced", "direct",
    "crystal", "m", "cm", "si", "μm", "um", "micrometer", "fm",
}  # fmt: skip
BARE_LENGTHS = LENGTHS - {"a0", "atomic", "scaled", "reduced", "direct", "crystal", "m", "cm", "si", "fm", "um"}
OF_POSITIONS = ("unit", "pos", "coord", "length", "distance")
OF_OTHERS = ("energ", "forc", "stress", "virial", "charge", "dipole", "time", "temp", "veloc", "mass", "pressure")
# Keys of a cell or of periodic directions that ASE does not know; Lattice and pbc are the ones that it reads.
CELL_KEYS = {
    "cell", "cells", "unitcell", "box", "boxsize", "lattices", "latticevectors", "cellvectors", "cellparameters",
    "latticeparameters", "cellpar", "abc", "tv", "translationvectors", "periodic", "periodicity",
    "periodicboundary", "cellparams", "supercell",
}  # fmt: skip
CELL_LENGTHS = {"a", "b", "c"}  # and angles have no meaning but that of a cell where all three are given
GHOSTS = ("ghost", "dummy")
ION = re.compile(r"\[?((?:[A-Z][a-z]?\d*)+)\]?(?:\d*[+-]|[+-]\d+)", re.ASCII)
NO_CELL = {"", "none", "f", "false", "no", "0", "f f f", "false false false"}


@dataclass(frozen=True)
class Column:
    """A column of ``Properties``: its name, its type (S, I, R or L) and how many words of a line it takes."""

    name: str
    kind: str
    width: int


def check_xyz(lines: Iterable[str]) -> None:
    """Refuse comments and columns that ASE reads in part or wrongly, and lines that ASE leaves out.

    Args:
        lines: of the file.

    Raises:
        ValueError: a comment has illegal periodic directions, a key twice, another unit of length than Å, a cell under
            an unknown key or a bare pair of charge and multiplicity; columns contradict each other or are not
            named; or there are lines after the last frame.
    """
    for comment, atoms in _frames(lines):
        _check_flags(comment)
        _check_keys(comment)
        _check_units(comment)
        for lattice in LATTICE.findall(comment):
            check_numbers(re.split(r"[\s,\"'\[\]{}]+", lattice))
        found = PAIR.fullmatch(comment)
        if found and int(found[2]) > 0 and (int(found[1]), int(found[2])) != (0, 1):
            raise ValueError(
                f"its comment {comment.strip()!r} may be charge and multiplicity: write charge={int(found[1])} "
                f"spin={int(found[2])}, or leave it out"
            )
        columns = _columns(comment)
        _check_columns(columns, atoms)
        _check_ion(comment, columns, atoms)


def _frames(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    rest = iter(lines)
    number, is_over = 0, False
    for line in rest:
        number += 1
        words = line.split()
        if not words:
            is_over = True
            continue
        if words[0].startswith("VEC"):
            continue
        if is_over or not words[0].isdigit():
            raise ValueError(f"line {number} ({line.strip()[:40]!r}) belongs to no frame, and ASE would leave it out")
        if len(words) > 1 or not words[0].isascii():
            raise ValueError(f"line {number} ({line.strip()[:40]!r}) has to be a number of atoms, and nothing else")
        comment, atoms = next(rest, ""), list(islice(rest, int(words[0])))
        yield comment, atoms
        number += 1 + len(atoms)


def _columns(comment: str) -> list[Column]:
    found = PROPERTIES.search(comment)
    words = (found[1] if found else PLAIN_COLUMNS).split(":")
    if len(words) % 3 or not all(re.fullmatch(r"[1-9]\d{0,5}", width, re.ASCII) for width in words[2::3]):
        raise ValueError(f"Properties={':'.join(words)[:80]} is not of the form name:type:width:name:type:width")
    named = zip(words[::3], words[1::3], words[2::3], strict=True)
    return [Column(name, kind, int(width)) for name, kind, width in named]


def _check_columns(columns: list[Column], lines: list[str]) -> None:
    """Refuse words beyond the columns, and columns that say twice, and differently, what or where an atom is."""
    names = [column.name for column in columns]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"its Properties have the column {twice[0]!r} twice")
    width = sum(column.width for column in columns)
    starts = {column.name: sum(other.width for other in columns[:place]) for place, column in enumerate(columns)}
    for column in columns:
        if any(part in plain_key(column.name) for part in GHOSTS) and column.width == 1:
            marked = [line.split()[starts[column.name]] for line in lines if len(line.split()) == width]
            if set(marked) - {"F", "False", "false", "0"}:
                raise ValueError(f"its column {column.name!r} marks atoms that are none: remove them and the column")
    numeric = [place for column in columns if column.kind in "RI" for place in _places(column, starts)]
    species = [
        column
        for column in columns
        if column.kind in "SI" and column.width == 1 and plain_key(column.name) in OF_SPECIES
    ]
    places = [column for column in columns if column.kind == "R" and plain_key(column.name) in OF_PLACES]
    for line in lines:
        words = line.split()
        if len(words) != width:
            if len(words) > width:
                raise ValueError(
                    f"its line {line.strip()[:60]!r} has {len(words)} words, and {width} are named: name all columns, "
                    "as Properties=species:S:1:pos:R:3:forces:R:3"
                )
            continue  # ASE says what is wrong
        check_numbers([words[place] for place in numeric])
        said = {column.name: _number_of(words[starts[column.name]]) for column in species}
        if len(set(said.values())) > 1:
            raise ValueError(f"its columns {' and '.join(said)} differ in the line {line.strip()[:60]!r}")
        if len(places) > 1:
            _check_places(places, starts, words)


def _check_ion(comment: str, columns: list[Column], lines: list[str]) -> None:
    """Refuse the formula of the structure with a charge, as H2O+ or [NH4]+."""
    found = [word for word in comment.split() if ION.fullmatch(word)]
    if not found or columns[0].name != "species":
        return
    species = Formula.from_list([line.split()[0].capitalize() for line in lines if line.split()])
    for word in found:
        formula = ION.fullmatch(word)
        if formula and Formula(formula[1], strict=True).count() == species.count():
            raise ValueError(f"its comment {word!r} gives a charge of the structure: write charge=…, or leave it out")


def _places(column: Column, starts: dict[str, int]) -> range:
    return range(starts[column.name], starts[column.name] + column.width)


def _number_of(word: str) -> int | str:
    return int(word) if re.fullmatch(r"\d{1,3}", word, re.ASCII) else atomic_numbers.get(word, word)


def _check_places(columns: list[Column], starts: dict[str, int], words: list[str]) -> None:
    first, *others = [[words[place] for place in _places(column, starts)] for column in columns]
    for column, other in zip(columns[1:], others, strict=True):
        readable = all(NUMBER.fullmatch(word) for word in first + other) and len(first) == len(other)
        if not readable or any(abs(float(a) - float(b)) > SAME_ANG for a, b in zip(first, other, strict=True)):
            raise ValueError(
                f"its columns {columns[0].name!r} and {column.name!r} give different positions: leave one of them out"
            )


def _check_flags(comment: str) -> None:
    """Refuse illegal words for periodic directions: ASE treats any word as true."""
    for given in FLAGS.findall(comment):
        words = re.sub(r"[\"'{}\[\],]", " ", given).split()
        if len(words) not in (1, 3) or not {word.lower() for word in words} <= FLAG_WORDS:
            raise ValueError(f"pbc={given} is not legal: give one or three of T and F")


def _check_keys(comment: str) -> None:
    keys = re.findall(r"(?:^|\s)([^\s=]+)\s*=", QUOTED.sub("x", comment))
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise ValueError(f"its comment has the key {twice[0]!r} twice, and ASE would take the last")


def _check_units(comment: str) -> None:
    bare = re.search(r"(?i)\batomic[ _-]units?\b", comment)
    found = [("", bare[0])] if bare else []
    values = key_val_str_to_dict(comment)
    if {plain_key(key) for key in values} >= CELL_LENGTHS and not LATTICE.search(comment):
        raise ValueError("its comment has a, b and c, which may be a cell and which ASE does not read: write Lattice")
    for key, value in values.items():
        plain = plain_key(key)
        said = re.sub(r"[^a-z0-9]+", " ", str(value).lower()).strip()
        if plain in CELL_KEYS and said not in NO_CELL and not LATTICE.search(comment):
            raise ValueError(f"it has the key {key!r}, which ASE does not know: write Lattice or pbc, or leave it out")
        if isinstance(value, bool):
            found += [("", key) for word in words_of(key) if value and word in BARE_LENGTHS and key != "Au"]
        elif any(part in plain for part in OF_POSITIONS) and not any(part in plain for part in OF_OTHERS):
            found += [(key, str(value)) for word in words_of(str(value)) if word in LENGTHS]
    if found:
        key, value = found[0]
        given = f"{key}={value}" if key else value
        raise ValueError(f"its comment says {given!r}, and ASE reads positions in Å: convert them")
