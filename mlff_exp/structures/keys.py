"""Find keys of a structure that give charge, spin or isotopes in words that are not read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

TOLERANCE = 0.05  # charges of single atoms are rounded in files
# Parts of keys, in the form that `plain_key` returns, that tell of charge or spin.
STEMS = ("charge", "spin", "magmom", "magnet", "multipl", "unpaired", "openshell", "singlyoccupied")
SAID = {"crg", "mag", "totmag", "totalmag", "moment", "totalmoment", "ms2", "twos", "uks", "qnet", "qmol"}
# Words of a key that tell of charge or spin; parts of other words, as in "location", do not.
WORDS = {"q", "ion", "cation", "anion", "radical", "doublet", "triplet", "quartet", "quintet"}
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
        if isinstance(value, Mapping):
            refuse_unread(value, (), n_electrons)
        for inner, text in IN_TEXT.findall(value) if isinstance(value, str) else ():
            if not means_other(inner) and not _is_neutral(plain_key(inner), text, n_electrons):
                _refuse(f"{key}: {inner.strip()}", text)


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
