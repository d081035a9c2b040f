"""Refuse groups, lists and mappings that an interpolation or a file makes something else of."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlff_exp.config.checks import shown
from mlff_exp.config.errors import ConfigError

_GROUPS = ("task", "model", "system", "engine")  # of the whole configuration; each option has a dataclass of its own

_SINGLE = (str, int, float, bool)


def refuse_other_shapes(config: DictConfig) -> None:
    """Refuse values that are no mapping or list where their field is one.

    OmegaConf checks what is written, and single values behind interpolations, but no others.

    Raises:
        ConfigError: a value has another shape. The message names the key, the value and what is legal.
    """
    for group in _GROUPS:
        found, value = _resolved(config, group)
        if found and not (isinstance(value, DictConfig) and is_dataclass(OmegaConf.get_type(value))):
            raise ConfigError(
                f"{group}={_shown(value)} has no schema: the file of an option of one's own begins with "
                f"'defaults: [/schema/{group}/<kind>@_here_, _self_]', and extends that"
            )
    _check_fields(config, "")


def _check_fields(node: DictConfig, prefix: str) -> None:
    kind: Any = OmegaConf.get_type(node)
    hints = get_type_hints(kind)
    for name in (item.name for item in fields(kind)):
        found, value = _resolved(node, name)
        if found:
            _check(hints[name], value, f"{prefix}{name}")


def _check(hint: Any, value: Any, key: str) -> None:
    """Hold a resolved value against the annotation of its field."""
    if get_origin(hint) in (Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        if value is None or len(members) > 1:
            return
        (hint,) = members
    origin = get_origin(hint) or hint
    if is_dataclass(hint):
        if not (isinstance(value, DictConfig) and issubclass(OmegaConf.get_type(value) or object, hint)):  # type: ignore[arg-type]
            raise ConfigError(f"{key}={_shown(value)} must be a mapping with the keys of {hint.__name__}")  # type: ignore[union-attr]
    elif origin is list and not isinstance(value, ListConfig):
        raise ConfigError(f"{key}={_shown(value)} must be a list that is written out: [a,b]")
    elif hint in _SINGLE and (OmegaConf.is_config(value) or isinstance(value, list | dict)):
        raise ConfigError(f"{key}={_shown(value)} must be a single value")
    elif origin is dict and not (isinstance(value, DictConfig) and OmegaConf.get_type(value) is dict):
        raise ConfigError(f"{key}={_shown(value)} must be a mapping of its own")
    if isinstance(value, DictConfig) and is_dataclass(OmegaConf.get_type(value)):
        _check_fields(value, f"{key}.")
    elif isinstance(value, ListConfig | DictConfig) and origin in (list, dict):
        for name, below in _items(value):
            _check(get_args(hint)[-1] if get_args(hint) else Any, below, f"{key}.{name}")


def _items(node: ListConfig | DictConfig) -> Iterator[tuple[Any, Any]]:
    for name in range(len(node)) if isinstance(node, ListConfig) else list(node):
        found, value = _resolved(node, name)
        if found:
            yield name, value


def _resolved(node: ListConfig | DictConfig, name: Any) -> tuple[bool, Any]:
    """Return whether a key has a value that can be resolved, and the value; others are told by whoever needs them."""
    if OmegaConf.is_missing(node, name):
        return False, None
    try:
        return True, node[name]
    except OmegaConfBaseException:
        return False, None


def _shown(value: Any) -> str:
    plain = OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
    return shown(repr(plain))
