"""Find keys of a structure that give charge, spin or isotopes in words that are not read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from ase.data import atomic_numbers

TOLERANCE = 0.05  # charges of single atoms are rounded in files
# Parts of keys, in the form that `plain_key` returns, that tell of charge or spin.
STEMS = ("charge", "spin", "magmom", "magnet", "multipl", "unpaired", "openshell", "singlyoccupied")
SAID = {"crg", "mag", "totmag", "totalmag", "moment", "totalmoment", "ms2", "twos", "uks", "qnet", "qmol"}
# Words of a key that tell of charge or spin; parts of other words, as in "location", do not.
SPIN_WORDS = {"doublet", "triplet", "quartet", "quintet"}
WORDS = {"q", "ion", "cation", "anion", "radical", *SPIN_WORDS}
ELECTRONS = ("electrons", "nelec", "numelec", "electroncount")
HALF_OF_ELECTRONS = ("nalpha", "nbeta")
# Keys with these parts mean something else than the charge or spin of the structure.
OTHER_BEGINNINGS = ("max", "min", "mean", "core")
OTHER_PARTS = (
    "nuclear", "partial", "mulliken", "hirshfeld", "bader", "lowdin", "loewdin", "born", "density", "energy", "force",
    "center", "centre", "method", "model", "scheme", "unit", "source", "orbit", "repulsion", "transfer",
)  # fmt: skip
NEUTRAL_WORDS = {"", "neutral", "singlet", "none", "false", "f", "no", "natural", "restricted", "closed", "nonmagnetic"}
IN_TEXT = re.compile(rf"((?:[a-z0-9_ -]*)(?:{'|'.join(STEMS)})[a-z0-9_ -]*)[\"']?\s*[:=]\s*[\"']?([^\s,;}}\"']*)", re.I)

# Symbols of spin quantum numbers, which are also symbols of other things.
SYMBOLS = {"s", "ms"}
HALVES = re.compile(r"[+-]?(\d{1,4})(/2|\.50*|\.0*)?")
SYMBOLS_IN_TEXT = re.compile(r"(?<![\w+-])(2\s*\*?\s*[Ss]\s*\+\s*1|2[Ss]|[Mm]_?[Ss]|S)\s*[:=]\s*([+-]?\d[\d./]*)")
PAIRED = {"2s+1": (0, 1), "2s": (0,)}  # values that mean a singlet, or that nothing is given


def plain_key(key: object) -> str:
    """Return a key in lower case, without signs and spaces."""
    return re.sub(r"[^a-z0-9+]", "", str(key).lower())


def means_other(key: object) -> bool:
    """Return whether a key that tells of charges or spins does not tell those of the structure."""
    plain = plain_key(key)
    return plain.startswith(OTHER_BEGINNINGS) or any(part in plain for part in OTHER_PARTS)


def refuse_unread(values: Mapping[Any, Any], known: Collection[object], n_electrons: int) -> None:
    """Refuse a key that gives charge or spin and that is not read.

    Args:
        values: ``info`` of a structure, or a mapping in it.
        known: keys that are read.
        n_electrons: electrons of the neutral structure.

    Raises:
        ValueError: a key gives a charge or a spin other than those of a neutral singlet. The message names the key.
    """
    for key, value in values.items():
        if key in known:
            continue
        if _tells(key) and not _is_neutral(plain_key(key), value, n_electrons):
            _refuse(key, value)
        given = [other for other, said in values.items() if str(said) != "0"]
        if _is_spin(key, value, given, n_electrons):
            _refuse(key, value)
        if isinstance(value, str) and SPIN_WORDS & set(words_of(value)):
            _refuse(key, value)
        if isinstance(value, Mapping):
            refuse_unread(value, (), n_electrons)
        for inner, text in IN_TEXT.findall(value) if isinstance(value, str) else ():
            if not means_other(inner) and not _is_neutral(plain_key(inner), text, n_electrons):
                _refuse(f"{key}: {inner.strip()}", text)
        for inner, text in SYMBOLS_IN_TEXT.findall(value) if isinstance(value, str) else ():
            if _is_spin(inner, text, re.findall(r"\b([A-Z][a-z]?)\s*[:=]", value), n_electrons):
                _refuse(f"{key}: {inner}", text)


def refuse_unread_columns(arrays: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a column of charges or moments under a name that is not read, unless charges add up to zero.

    Raises:
        ValueError: there is such a column. The message names it.
    """
    for name, values in arrays.items():
        plain = plain_key(name)
        if plain in known or not any(stem in plain for stem in STEMS) or means_other(name):
            continue
        if values.dtype.kind in "iufb" and not _is_neutral(plain, values, 0):
            raise ValueError(
                f"its column {name!r} is not read: name it initial_charges or initial_magmoms, or leave it out"
            )


def _tells(key: object) -> bool:
    plain = plain_key(key)
    if means_other(key):
        return False
    words = set(re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", str(key)).lower()))
    parts = (*STEMS, *ELECTRONS[:1])
    return (
        any(part in plain for part in parts)
        or plain in SAID
        or bool(words & WORDS)
        or plain.startswith((*ELECTRONS[1:], *HALF_OF_ELECTRONS))
    )


def _is_spin(key: object, value: Any, keys: Collection[Any], n_electrons: int) -> bool:
    """Return whether a symbol such as ``S`` or ``ms`` gives the spin of something else than a singlet.

    Args:
        key: the symbol, ``2S`` and ``2S+1`` included.
        value: a number, a fraction such as ``1/2``, or True for a bare word.
        keys: all keys that are given; with other elements among them, ``S`` counts atoms of sulfur.
        n_electrons: electrons of the neutral structure; at most these are unpaired.
    """
    plain = plain_key(key)
    found = HALVES.fullmatch(str(value).rstrip(",;"))
    if plain in PAIRED:
        return found is None or int(found[1]) not in PAIRED[plain]
    if plain not in SYMBOLS or any(other != key and other in atomic_numbers for other in keys):
        return False
    if found is None:
        return value is True and str(key).endswith(":")
    ending = found[2] or ""
    unpaired = int(found[1]) if ending == "/2" else 2 * int(found[1]) + ending.startswith(".5")
    return 0 < unpaired <= n_electrons


def _is_neutral(plain: str, value: Any, n_electrons: int) -> bool:
    if isinstance(value, str):
        text = value.strip().lower()
        try:
            return text in NEUTRAL_WORDS or _is_neutral(plain, float(text), n_electrons)
        except ValueError:
            return False
    if value is None or isinstance(value, Mapping):  # what a mapping holds is judged by its own keys
        return True
    if isinstance(value, list | tuple) and not all(isinstance(one, int | float) for one in value):
        return all(_is_neutral(plain, one, n_electrons) for one in value)
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "iufb":
        return numbers.ndim > 0 and all(_is_neutral(plain, one, n_electrons) for one in numbers.ravel().tolist())
    numbers = numbers.astype(np.float64)
    if plain.startswith(HALF_OF_ELECTRONS):
        return bool((2 * numbers == n_electrons).all())
    if any(part in plain for part in ELECTRONS) and "unpaired" not in plain and bool((numbers == n_electrons).all()):
        return True
    if "multipl" in plain or plain == "nspin":
        return bool(((numbers == 0) | (numbers == 1)).all())
    # Charges of the atoms of a neutral molecule cancel; a structure with moments that cancel is no singlet.
    total = np.abs(numbers.sum()) if "charge" in plain else np.abs(numbers).max(initial=0.0)
    return bool(total < TOLERANCE)


def _refuse(key: object, value: Any) -> None:
    text = " ".join(str(value).split())
    shown = text if len(text) < 80 else f"{text[:80]} …"
    raise ValueError(
        f"its key {' '.join(str(key).split())[:80]!r} with the value {shown} tells of charge or spin and is not read: "
        "write charge=… and, for the multiplicity 2S + 1, spin=…, or leave it out"
    )


def words_of(text: str) -> Iterator[str]:
    """Yield the words of a text in lower case, without signs at their ends."""
    for word in re.split(r"[\s,;/=()\[\]{}\"']+", text.lower()):
        if plain := word.strip(".:"):
            yield plain
