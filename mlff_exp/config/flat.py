"""Flatten nested configurations to dotted names, and compare two of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences of two recorded configurations, except tracking: ``key: old → new``."""
    kept = [
        {key: values[key] for key in values if key not in ("sweep", "tracking", "timeout_s", "trust")}
        for values in (before, now)
    ]
    flat = [flatten(values) for values in kept]
    keys = sorted(flat[0].keys() | flat[1].keys())
    return [f"{key}: {flat[0].get(key)} → {flat[1].get(key)}" for key in keys if flat[0].get(key) != flat[1].get(key)]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested mappings to dotted names with values as text.

    Args:
        values: the nested mappings.
        prefix: prefix of all names.
    """
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = str(value)
    return flat
