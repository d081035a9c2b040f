"""Words of the configuration that have a new name. An old name works in this version, with a warning."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

# Old → new: ``group=option`` for an option of a group, else a key.
RENAMED = {
    "gate=seed": "gate=plan",
    "task.beside": "task.baselines",
}
_KEYS = {old: new for old, new in RENAMED.items() if "=" not in old}
_OPTIONS = {old: new for old, new in RENAMED.items() if "=" in old}
_warned: set[str] = set()


def rename_word(word: str) -> str:
    """Replace an old key in a word of the command line or of a stage.

    Args:
        word: as ``task.beside=[eager]``, with or without ``+`` or ``~`` before it.

    Returns:
        The same word with the new key.
    """
    for old, new in _KEYS.items():
        if found := re.match(rf"[+~]*{re.escape(old)}(?=[=@]|$)", word):
            _warn(old)
            return f"{found[0].removesuffix(old)}{new}{word[found.end() :]}"
    return word


def rename_option(path: str) -> str:
    """Replace an old option in the path of a configuration file.

    Args:
        path: ``group/option``, as ``gate/seed``.
    """
    old = path.replace("/", "=")
    if old not in _OPTIONS:
        return path
    _warn(old)
    return _OPTIONS[old].replace("=", "/")


def rename_keys(config: DictConfig, group: str) -> None:
    """Replace old keys in the content of a configuration file, in place.

    Args:
        config: the content of the file.
        group: the group of the file, in whose package its keys may stand; empty for none.
    """
    for old, new in _KEYS.items():
        for prefix in ("", f"{group}."):
            parent, _, key = old.removeprefix(prefix).rpartition(".")
            if old.startswith(prefix) and _move(config, parent, key, new.rpartition(".")[2]):
                _warn(old)


def _move(config: DictConfig, parent: str, old: str, new: str) -> bool:
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig) or old not in node or new in node:
        return False
    with read_write(node), open_dict(node):
        node[new] = node._get_node(old)
        del node[old]
    return True


def rename_recorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that an earlier version recorded with the new names.

    Args:
        config: plain values of a run, with or without the old names.
    """
    renamed = dict(config)
    for old, new in _KEYS.items():
        group, key = old.split(".")
        if isinstance(values := renamed.get(group), Mapping) and key in values:
            renamed[group] = {new.partition(".")[2] if name == key else name: value for name, value in values.items()}
    for group in {old.partition("=")[0] for old in _OPTIONS}:
        if isinstance(values := renamed.get(group), Mapping) and isinstance(values.get("name"), str):
            renamed[group] = {**values, "name": new_option(group, values["name"])}
    sweep = renamed.get("sweep")
    if isinstance(sweep, Mapping) and isinstance(varied := sweep.get("varied"), Mapping):
        found = {_KEYS.get(key, key): _new_value(key, value) for key, value in varied.items()}
        renamed["sweep"] = {**sweep, "varied": found}
    return renamed


def new_option(group: str, name: str) -> str:
    """Return the new name of an option, or the name itself where it was not renamed."""
    return _OPTIONS.get(f"{group}={name}", f"{group}={name}").partition("=")[2]


def old_options(group: str, name: str) -> list[str]:
    """Return the old names of an option."""
    return [old.partition("=")[2] for old, new in _OPTIONS.items() if new == f"{group}={name}"]


def _new_value(key: str, value: Any) -> Any:
    group, _, last = key.rpartition(".")
    return new_option(group, value) if last == "name" and isinstance(value, str) else value


def _warn(old: str) -> None:
    """Print a warning once for each old name."""
    if old not in _warned:
        _warned.add(old)
        print(
            f"mlff-exp: warning: {old} has a new name, {RENAMED[old]}; the old one works in this version only",
            file=sys.stderr,
        )
