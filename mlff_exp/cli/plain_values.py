"""Refuse values that OmegaConf would convert to another type without a word: ``cold_compile=7`` would be true."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from omegaconf import BooleanNode, DictConfig, FloatNode, IntegerNode, ListConfig, Node, OmegaConf, StringNode

from mlff_exp.config import ConfigError, shown

_WORDS = ("true", "false", "yes", "no", "on", "off", "1", "0")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?\.?(?:inf|nan)", re.IGNORECASE)


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool) or str(value).lower() in _WORDS


def _is_integer(value: Any) -> bool:
    return not isinstance(value, bool) and _INTEGER.fullmatch(str(value)) is not None


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and _NUMBER.fullmatch(str(value)) is not None


def _is_text(value: Any) -> bool:
    return not isinstance(value, bool)


# By the type of a field: what it takes, and how that is called.
_TAKEN: dict[type[Node], tuple[Callable[[Any], bool], str]] = {
    BooleanNode: (_is_boolean, f"one of: {', '.join(_WORDS)}"),
    IntegerNode: (_is_integer, "a whole number"),
    FloatNode: (_is_number, "a number"),
    StringNode: (_is_text, "a text, which true and false are only in quotes"),
}


def refuse_lenient(composed: DictConfig, parts: tuple[str, ...], value: Any) -> None:
    """Refuse a value that its field would take only as something else.

    Args:
        composed: the configuration that the value went into.
        parts: of its key.
        value: as it was given; an interpolation or None is left to OmegaConf.

    Raises:
        ConfigError: there is such a value. The message names the key, the value and what is legal.
    """
    if value is None or (isinstance(value, str) and ("${" in value or value == "???")):
        return
    taken = _TAKEN.get(type(_node(composed, parts)))
    if taken is not None and not taken[0](value):
        raise ConfigError(f"{'.'.join(parts)}={shown(repr(value))} must be {taken[1]}")


def _node(composed: DictConfig, parts: tuple[str, ...]) -> Any:
    """The node of a key; None if there is none, or the way to it is an interpolation."""
    node: Any = composed
    for part in parts:
        if not OmegaConf.is_config(node) or node._is_none() or node._is_missing() or node._is_interpolation():
            return None
        if isinstance(node, ListConfig):
            if not part.isdecimal() or int(part) >= len(node):
                return None
            node = node._get_node(int(part))
        else:
            node = node._get_node(part)
    return node
