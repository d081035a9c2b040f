"""Refuse a YAML file that is too large or ambiguous. A few lines of aliases can stand for millions of values."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import yaml

from mlff_exp.config.errors import ConfigError

MAX_BYTES = 2**20
MAX_NESTED = 100
MAX_VALUES = 50_000  # an alias counts with all the values that it stands for
# YAML 1.1 reads 010 as 8, 0x10 as 16 and 1:30 as 90; the command line does not.
AMBIGUOUS = re.compile(r"[-+]?(0[0-9_]+|0[xob][0-9a-f_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|[0-9]+_[0-9_]*)", re.I)


def refuse_yaml(path: Path) -> None:
    """Refuse a YAML file that is too large, whose aliases stand for too many values, or with ambiguous numbers.

    A file that is no YAML passes; reading it fails with a message of its own.

    Args:
        path: the file.

    Raises:
        ConfigError: the message names the file, and the bound or the number.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # it may wait for ever
        raise ConfigError(f"{path} is not a regular file")
    if found.st_size > MAX_BYTES:
        raise ConfigError(f"{path} has more than {MAX_BYTES:,} bytes, which no configuration needs")
    try:
        with path.open("rb") as file:
            n_values = _n_values(file.read())
    except _AmbiguousError as error:
        raise ConfigError(f"{path}: YAML reads {error} as another number; write a decimal, or quotes") from error
    except _NestedError as error:
        raise ConfigError(f"{path} is nested in more than {MAX_NESTED} levels") from error
    except (yaml.YAMLError, UnicodeDecodeError):
        return
    if n_values > MAX_VALUES:
        raise ConfigError(
            f"{path} stands for more than {MAX_VALUES:,} values, aliases counted with what they stand for"
        )


class _AmbiguousError(Exception):
    """A number that YAML does not read as it is written."""


class _NestedError(Exception):
    """Mappings, lists or interpolations are nested so deeply that reading them takes long, and fails."""


def _refuse_nested(depth: int) -> None:
    if depth > MAX_NESTED:
        raise _NestedError


def _depth(text: str) -> int:
    """Return how deeply ``${…}`` are nested in a text, at most."""
    depth = deepest = 0
    for bracket in re.findall(r"\$\{|\}", text):
        depth = max(depth + (1 if bracket != "}" else -1), 0)
        deepest = max(deepest, depth)
    return deepest


def _n_values(text: bytes) -> int:
    """Count the values of a YAML text without making them; the count stops above the bound."""
    sizes: dict[str, int] = {}  # of what has an anchor and is complete
    open_nodes: list[tuple[str | None, int]] = []  # anchors of mappings and lists, and the count where each began
    count = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        match event:
            case yaml.AliasEvent():
                # An alias inside its own anchor has no end. A missing anchor counts as one value: reading will fail.
                is_open = any(anchor == event.anchor for anchor, _ in open_nodes)
                count += MAX_VALUES + 1 if is_open else sizes.get(event.anchor, 1)
            case yaml.ScalarEvent():
                count += 1
                _refuse_nested(_depth(event.value))
                if event.implicit[0] and AMBIGUOUS.fullmatch(event.value):
                    raise _AmbiguousError(event.value[:40])
                if event.anchor is not None:
                    sizes[event.anchor] = 1
            case yaml.CollectionStartEvent():
                open_nodes.append((event.anchor, count))
                _refuse_nested(len(open_nodes))
                count += 1
            case yaml.CollectionEndEvent():
                anchor, began = open_nodes.pop()
                if anchor is not None:
                    sizes[anchor] = count - began
        if count > MAX_VALUES:
            break
    return count
