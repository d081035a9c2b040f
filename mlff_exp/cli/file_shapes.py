"""Refuse a file that has a list, a mapping, a single value or nothing where its key takes another kind."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.conf import HydraConf
from omegaconf import OmegaConf

from mlff_exp.config import Config, ConfigError, shown

# Keys of any type, below which an option puts the dataclass of its own.
_GROUPS = ("task", "model", "system", "engine")
_SINGLE = (str, int, float, bool)


def refuse_misshapen(config: Any, source: str) -> None:
    """Refuse the values of a file by their kind, before Hydra merges them: its own messages leave out key and value.

    Args:
        config: the file's part of the configuration.
        source: name of the file.

    Raises:
        ConfigError: a value has another shape. The message names the file, the key, the value and what is legal.
    """
    values = OmegaConf.to_container(config, resolve=False)
    if isinstance(values, Mapping):
        _check_keys({**get_type_hints(Config), "hydra": HydraConf}, values, "", source)


def _check_keys(hints: Mapping[str, Any], values: Mapping[Any, Any], prefix: str, source: str) -> None:
    for name, value in values.items():
        if name in hints:  # Hydra refuses other keys
            _check(hints[name], value, f"{prefix}{name}", source)


def _check(hint: Any, value: Any, key: str, source: str) -> None:
    """Hold a value against the annotation of its field."""
    if isinstance(value, str) and ("${" in value or value == "???"):
        return
    said = f"{source}: {key}={shown(repr(value))}"
    if key in _GROUPS and not isinstance(value, Mapping):
        raise ConfigError(f"{said} must be a mapping; to choose another one: defaults: [override /{key}: <name>]")
    if get_origin(hint) in (Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        if value is None or len(members) > 1:
            return
        (hint,) = members
    kind = get_origin(hint) or hint
    below = get_args(hint)[-1] if get_args(hint) else Any
    if value is None and hint is not Any:
        raise ConfigError(f"{source}: {key} can't be null: leave it out, or give it a value")
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        if not isinstance(value, Mapping):
            raise ConfigError(f"{said} must be a mapping with the keys {', '.join(hints)}")
        _check_keys(hints, value, f"{key}.", source)
    elif kind is list:
        if not isinstance(value, list):
            raise ConfigError(f"{said} must be a list: [a,b]")
        for number, item in enumerate(value):
            _check(below, item, f"{key}.{number}", source)
    elif kind is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{said} must be a mapping")
        for name, item in value.items():
            _check(below, item, f"{key}.{name}", source)
    elif kind in _SINGLE and isinstance(value, list | Mapping):
        raise ConfigError(f"{said} must be a single value")
