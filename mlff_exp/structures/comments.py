"""Read the comments of an xyz file, and refuse what ASE ignores or takes for something else in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from ase.io.extxyz import key_val_str_to_dict

from mlff_exp.structures.keys import plain_key, words_of

FLAGS = re.compile(r"""(?i)\bpbc\s*=\s*("[^"]*"|'[^']*'|\{[^}]*\}|\[[^]]*\]|\S+)""")
FLAG_WORDS = {"t", "f", "true", "false", "1", "0"}
QUOTED = re.compile(r"""\\.|"[^"]*"|'[^']*'|\{[^}]*\}|\[[^]]*\]""")
PAIR = re.compile(r"\s*([+-]?\d{1,2})(?:\s+|\s*,\s*)(\d{1,2})\s*")
LENGTHS = {
    "bohr", "bohrs", "a0", "au", "a.u", "atomic", "nm", "nanometer", "nanometers", "nanometre", "pm", "picometer",
    "picometers", "frac", "fractional", "scaled", "reduced", "direct", "crystal", "m", "cm", "si",
}  # fmt: skip
BARE_LENGTHS = {"bohr", "bohrs", "au", "a.u", "nm", "nanometer", "nanometers", "pm", "picometers", "fractional", "frac"}
OF_POSITIONS = ("unit", "pos", "coord", "length", "distance")
OF_OTHERS = ("energ", "forc", "stress", "virial", "charge", "dipole", "time", "temp", "veloc", "mass", "pressure")


def check_comments(lines: Iterable[str]) -> None:
    """Refuse comments that ASE reads in part or wrongly, and lines that ASE leaves out.

    Args:
        lines: of the file.

    Raises:
        ValueError: a comment has illegal periodic directions, a key twice, another unit of length than Å or a bare
            pair of charge and multiplicity, or there are lines after the last frame.
    """
    for comment in _comments(lines):
        _check_flags(comment)
        _check_keys(comment)
        _check_units(comment)
        found = PAIR.fullmatch(comment)
        if found and int(found[2]) > 0 and (int(found[1]), int(found[2])) != (0, 1):
            raise ValueError(
                f"its comment {comment.strip()!r} may be charge and multiplicity: write charge={int(found[1])} "
                f"spin={int(found[2])}, or leave it out"
            )


def _comments(lines: Iterable[str]) -> Iterator[str]:
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
        yield next(rest, "")
        n_atoms = int(words[0])
        number += 1 + sum(1 for _ in islice(rest, n_atoms))


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
    for key, value in key_val_str_to_dict(comment).items():
        plain = plain_key(key)
        if isinstance(value, bool):
            found += [("", key) for word in words_of(key) if value and word in BARE_LENGTHS and key != "Au"]
        elif any(part in plain for part in OF_POSITIONS) and not any(part in plain for part in OF_OTHERS):
            found += [(key, str(value)) for word in words_of(str(value)) if word in LENGTHS]
    if found:
        key, value = found[0]
        given = f"{key}={value}" if key else value
        raise ValueError(f"its comment says {given!r}, and ASE reads positions in Å: convert them")
