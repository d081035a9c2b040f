"""Check the parts of a recorded configuration that names, figures and MLflow use."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlff_exp.results.naming import RunKey

INT64 = range(-(2**63), 2**63)
MAX_DEPTH = 50
ABSENT = object()
# The types of values by key; a key may be absent.
TYPES: dict[str, type | tuple[type, ...]] = {
    "task": Mapping,
    "task.name": str,
    "task.dataset": str,
    "task.systems": list,
    "task.replicas": int,
    "task.n_features": int,
    "task.n_interactions": int,
    "task.duration_ps": (int, float),
    "model": Mapping,
    "model.name": str,
    "model.checkpoint": str,
    "model.factory": str,
    "model.arguments": Mapping,
    "model.calculator": Mapping,
    "model.calculator._target_": str,
    "system": Mapping,
    "system.name": str,
    "system.path": str,
    "engine": Mapping,
    "engine.name": str,
    "engine.mode": str,
    "precision": Mapping,
    "precision.name": str,
    "gate": Mapping,
    "gate.name": str,
    "sweep": Mapping,
    "sweep.gate_decision": str,
    "batch_size": int,
    "device": str,
}
LEAST_1 = ("batch_size", "task.replicas", "task.n_features", "task.n_interactions")
POSITIVE = ("task.duration_ps",)
# The keys of the configuration that fields of a `RunKey` are made from.
MADE_FROM = {
    "model": "model.name",
    "engine": "engine.name",
    "precision": "precision.name",
    "batch_size": "batch_size",
}


def check_recorded(config: Mapping[str, Any], key: RunKey | None = None) -> None:
    """Refuse a recorded configuration that no run of this version can have.

    Args:
        config: plain values; one without a task is not checked.
        key: the recorded identity of the run; the configuration must have what it was made from.

    Raises:
        ValueError: the message names the key, its value and the legal type.
    """
    if "task" not in config:
        return
    if _deeper_than(config, MAX_DEPTH):
        raise ValueError(f"config is nested in more than {MAX_DEPTH} levels")
    for name, kind in TYPES.items():
        value: Any = _at(config, name, ABSENT)
        if value is ABSENT:
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"config.{name}={_shown(value)} is not {_named(kind)}")
        if isinstance(value, int) and value not in INT64:
            raise ValueError(f"config.{name}={_shown(value)} has more than 64 bits")
        if name in LEAST_1 and isinstance(value, int) and value < 1:
            raise ValueError(f"config.{name}={_shown(value)} is less than 1")
        if name in POSITIVE and isinstance(value, int | float) and not 0 < value < math.inf:
            raise ValueError(f"config.{name}={_shown(value)} is not positive")
    for system in _at(config, "task.systems") or []:
        if not isinstance(system, str):
            raise ValueError(f"config.task.systems holds {_shown(system)}, which is not str")
    varied = _at(config, "sweep.varied")
    for name, value in varied.items() if isinstance(varied, Mapping) else ():
        if not isinstance(value, str):
            raise ValueError(f"config.sweep.varied.{name}={_shown(value)} is not str")
    refuse_missing(config, _needed(config, key))


def refuse_missing(config: Mapping[str, Any], needed: Iterable[str]) -> None:
    """Refuse a recorded configuration that has no value for some keys.

    Raises:
        ValueError: the message names the keys.
    """
    missing = [key for key in dict.fromkeys(needed) if _at(config, key) is None]
    if missing:
        raise ValueError(f"config has no {', '.join(missing)}")


def _needed(config: Mapping[str, Any], key: RunKey | None) -> list[str]:
    """Return the keys that names and figures of a run are made from."""
    groups = ("model", "engine", "precision", "system")
    needed = ["task.name", *(f"{group}.name" for group in groups if group in config)]
    if "model" in config:  # an engine evaluates it
        needed += ["engine.name", "precision.name"]
    if key is not None:
        needed += [path for field, path in MADE_FROM.items() if getattr(key, field) not in ("", None)]
        if key.system and not _at(config, "task.systems"):
            needed.append("system.name")
    if _at(config, "system.name") == "file":
        needed.append("system.path")
    return needed


def _at(values: Any, key: str, otherwise: Any = None) -> Any:
    for part in key.split("."):
        values = values.get(part, otherwise) if isinstance(values, Mapping) else otherwise
    return values


def _deeper_than(value: Any, levels: int) -> bool:
    below = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper_than(one, levels - 1) for one in below)


def _named(kind: type | tuple[type, ...]) -> str:
    names: dict[Any, str] = {Mapping: "a mapping", list: "a list"}
    return "a number" if isinstance(kind, tuple) else names.get(kind, kind.__name__)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of too many digits
        return "a number of thousands of digits"
    return text if len(text) < 80 else f"{text[:80]} …"
