"""Bound what the ``${…}`` of a configuration stand for, before any of them is resolved.

OmegaConf resolves a value anew wherever another one refers to it: ten lines, each with ten references to the line
above, are 10¹⁰ resolutions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from mlff_exp.config import ConfigError

MAX_CHARACTERS = 1_000_000
_MAX_NESTED = 32
# Resolvers that take keys of the configuration, and those that read a text as a part of it.
_OF_KEYS = ("oc.select", "oc.dict.keys", "oc.dict.values", "hydra")
_READING = ("oc.decode", "oc.create")
_INNERMOST = re.compile(r"(\$?)\{((?:[^${}]|\$(?!\{))*)\}")
_VALUE, _OUTSIDE = "\0", "\1"  # stand for an inner interpolation: of the configuration, of the environment
_REPLACED = ("replaced",)  # the key under which `merged` keeps an interpolation that a mapping goes into

Parts = tuple[str, ...]


def refuse_bomb(values: Any) -> None:
    """Refuse a configuration whose interpolations stand for too much.

    The bound is an upper one: a reference counts with all that is below its key, and one whose key is itself composed
    with all that is below the part of the key that is known.

    Args:
        values: the configuration as plain values that are not resolved.

    Raises:
        ConfigError: the references of a value lead back to it, or stand for more than `MAX_CHARACTERS`. The message
            names the value.
    """
    tree = _tree(values)
    _Sizes(tree).of((), tree)


def merged(below: Any, above: Any) -> Any:
    """The plain values of two configurations that are not resolved, the second of which goes over the first."""
    if not isinstance(above, Mapping):
        return above
    if isinstance(below, str) and "${" in below:  # OmegaConf goes over what it stands for
        below = {_REPLACED: below}
    if not isinstance(below, Mapping):
        return above
    return {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}


def _tree(value: Any) -> Any:
    """The plain values with texts as keys, as interpolations name them."""
    if isinstance(value, Mapping):
        if len({str(key) for key in value}) < len(value):
            raise ConfigError(f"a mapping has a number and a text as the same key: {', '.join(map(repr, value))[:80]}")
        return {str(key): _tree(below) for key, below in value.items()}
    return [_tree(below) for below in value] if isinstance(value, list) else value


class _Sizes:
    """The upper bounds of the characters of each value of a configuration, each computed once."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[Parts, int] = {}
        self._open: set[Parts] = set()

    def of(self, parts: Parts, value: Any) -> int:
        if parts in self._known:
            return self._known[parts]
        self._open.add(parts)
        if isinstance(value, Mapping):
            size = sum(len(key) + self.of((*parts, key), below) for key, below in value.items())
        elif isinstance(value, list):
            size = sum(self.of((*parts, str(number)), below) for number, below in enumerate(value))
        else:
            text = str(value)
            size = len(text)
            for key, count in _references(parts, text):
                found, below = self._found(key)
                if found in self._open:
                    raise ConfigError(
                        f"{_name(parts)} refers to itself, or to a key that cannot be told before it is resolved"
                    )
                size += count * self.of(found, below)
        if size > MAX_CHARACTERS:
            raise ConfigError(
                f"{_name(parts)} stands for more than {MAX_CHARACTERS:,} characters, each ${{…}} counted with what it "
                "refers to"
            )
        self._open.remove(parts)
        self._known[parts] = size
        return size

    def _found(self, key: Parts) -> tuple[Parts, Any]:
        """The value of a key, or the interpolation on the way to it; an empty one if there is neither."""
        node = self._root
        for number, part in enumerate(key):
            if isinstance(node, Mapping):
                if part not in node and str(_REPLACED) in node:
                    return (*key[:number], str(_REPLACED)), node[str(_REPLACED)]
                node = node.get(part, "")
            elif isinstance(node, list):
                node = node[int(part)] if part.isdecimal() and int(part) < len(node) else ""
            else:
                return key[:number], node
        return key, node


def _references(parts: Parts, text: str) -> Iterator[tuple[Parts, int]]:
    """The keys that the interpolations in the value of a key refer to, each with the number of times.

    A composed key is cut where the unknown part of it begins.
    """
    for _ in range(_MAX_NESTED):
        if "${" not in text:
            return
        for (dollar, inner), count in Counter(_INNERMOST.findall(text)).items():
            if dollar:
                yield from ((key, count) for key in _keys(parts, inner))
        reduced = _INNERMOST.sub(lambda found: _reduced(*found.groups()), text)
        if reduced == text:  # a brace in quotes, or one without the other
            for inner in text.split("${")[1:]:
                yield from ((key, 1) for key in _keys(parts, inner))
            return
        text = reduced
    raise ConfigError(f"{_name(parts)} has ${{…}} inside ${{…}} in more than {_MAX_NESTED} levels")


def _reduced(dollar: str, inner: str) -> str:
    if not dollar:  # a mapping among the arguments of a resolver
        return f" {inner} "
    is_outside = inner.strip().startswith("oc.env:") and not {_VALUE, "$"} & set(inner)
    return _OUTSIDE if is_outside else _VALUE


def _keys(parts: Parts, inner: str) -> Iterator[Parts]:
    """The keys that one interpolation refers to, given what stands between its braces."""
    resolver, colon, arguments = inner.partition(":")
    if resolver.strip() == "oc.deprecated":
        raise ConfigError(f"${{{inner}}}: name the key that is meant, as ${{{arguments.partition(',')[0]}}}")
    if not colon:
        yield _absolute(parts, inner)
        return
    if _VALUE in resolver or (resolver.strip() in _READING and _VALUE in arguments):
        yield ()  # it may refer to anything
    if resolver.strip() == "hydra":
        yield _absolute(parts, f"hydra.{arguments.strip()}")
    elif resolver.strip() in _OF_KEYS:
        yield from (_absolute(parts, key) for key in re.split(r"[,'\"]", arguments) if key.strip())


def _absolute(parts: Parts, key: str) -> Parts:
    key = key.strip()
    n_dots = len(key) - len(key.lstrip("."))
    known, composed, _ = re.sub("[" + _VALUE + _OUTSIDE + "]", _VALUE, key[n_dots:]).partition(_VALUE)
    found = [part for part in re.split(r"[.\[\]]+", known) if part]
    if composed and found and known[-1] not in ".[":
        del found[-1]
    return (*(parts[: max(len(parts) - n_dots, 0)] if n_dots else ()), *found)


def _name(parts: Parts) -> str:
    return ".".join(part for part in parts if part != str(_REPLACED)) or "the configuration"
