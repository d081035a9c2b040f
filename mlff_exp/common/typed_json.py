"""Read JSON into dataclasses by their annotations; a damaged or foreign file is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from mlff_exp.common.files import refuse_irregular

_EXACT = 2**53  # larger integers are not all floats
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: there is no such file, it is empty or too large, or it is no JSON with finite numbers.
    """
    try:
        refuse_irregular(path)
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"it can't be read: {error.strerror}") from error


def parse_json(text: str) -> Any:
    """Parse a JSON text into plain values.

    Raises:
        ValueError: it is no JSON, is nested too deeply, has a key twice, has NaN, infinity or half a character.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_mapping)
        if _SURROGATE.search(text):  # a pair of them is one character, and a doubled backslash is none
            _refuse_halves(value)
        return value
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def typed_value(kind: Any, value: Any, where: str = "") -> Any:
    """Convert a plain value to an annotated type; mappings become dataclasses, and numbers must be finite.

    Args:
        kind: str, int, float, bool, Any, None, a Literal, a dataclass, or a Mapping, dict, Sequence, tuple or union
            of these.
        value: plain value from JSON.
        where: name of the value, for messages.

    Raises:
        ValueError: the value has another type. The message names both.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _made(kind, value, where)
    if origin is Literal:
        return value if value in inner else _wrong(where, value, f"one of {', '.join(map(str, inner))}")
    if origin in (Union, types.UnionType):
        (only,) = (one for one in inner if one is not type(None))
        return None if value is None else typed_value(only, value, where)
    if origin in (Mapping, dict):
        if not isinstance(value, dict):
            _wrong(where, value, "a mapping")
        return {key: typed_value(inner[1], below, f"{where}.{key}") for key, below in value.items()}
    if origin in (Sequence, tuple):
        return _sequence(kind, value, where)
    if isinstance(value, bool) and kind is not bool:
        _wrong(where, value, kind.__name__)
    if kind is float and isinstance(value, int | float):
        if not _is_finite(value):
            _wrong(where, value, "finite")
        return value if abs(value) < _EXACT else float(value)  # numpy makes no array of numbers of larger integers
    return value if isinstance(value, kind) else _wrong(where, value, kind.__name__)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that is larger than any float
        return False


def _sequence(kind: Any, value: Any, where: str) -> Any:
    inner, is_tuple = get_args(kind), get_origin(kind) is tuple
    if not isinstance(value, list):
        _wrong(where, value, "a list")
    if is_tuple and inner[-1] is not Ellipsis:  # a pair stays what JSON has for it
        if len(value) != len(inner):
            _wrong(where, value, f"{len(inner)} values")
        return [typed_value(one, item, where) for one, item in zip(inner, value, strict=True)]
    items = [typed_value(inner[0], item, where) for item in value]
    return tuple(items) if is_tuple else items


def _made(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        _wrong(where or "it", value, "a mapping")
    fields, hints = dataclasses.fields(kind), get_type_hints(kind)
    if unknown := sorted(set(value) - {item.name for item in fields}):
        # A few, cut short: a file that is something else may hold what is not to be repeated in a log.
        named = ", ".join(str(key)[:20] for key in unknown[:3])
        raise ValueError(f"{where + ': ' if where else ''}unknown keys: {named}{' …' if len(unknown) > 3 else ''}")
    missing = [
        item.name
        for item in fields
        if item.name not in value and item.default is item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where + ': ' if where else ''}missing keys: {', '.join(missing)}")
    prefix = f"{where}." if where else ""
    return kind(**{name: typed_value(hints[name], below, f"{prefix}{name}") for name, below in value.items()})


def _wrong(where: str, value: Any, expected: str) -> NoReturn:
    text = repr(value)
    raise ValueError(f"{where}={text if len(text) < 80 else text[:80] + ' …'} is not {expected}")


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"it has the key {twice[:80]!r} twice")
    return values


def _refuse_halves(value: Any) -> None:
    if isinstance(value, dict):
        for key, below in value.items():
            _refuse_halves(key)
            _refuse_halves(below)
    elif isinstance(value, list):
        for below in value:
            _refuse_halves(below)
    elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"it holds {ascii(value)[:80]}, with half a character that no text can have")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is no number")
