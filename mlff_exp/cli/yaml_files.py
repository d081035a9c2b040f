"""Refuse a configuration file that is too large. A few lines of YAML aliases can stand for millions of values."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import yaml
from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mlff_exp.config import ConfigError, rename_keys, rename_option, shown

MAX_BYTES = 2**20
MAX_NESTED = 100
MAX_VALUES = 50_000  # an alias counts with all the values that it stands for


class BoundedRepository(ConfigRepository):
    """Hydra's repository of configurations, with a bound on the size of files."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Load as Hydra does, but take a file instead of an option of our own of the same name, and merge nothing.

        Raises:
            ConfigError: the file is too large, or stands for too many values.
        """
        config_path = self._renamed(config_path)
        source = self._find_object_source(config_path=config_path, object_type=ObjectType.CONFIG)
        is_file = source is not None and source.scheme() == "file"
        if source is None or not is_file:
            found = super().load_config(config_path)
        else:
            path = Path(source.path) / source._normalize_file_name(config_path)
            refuse_large(path)
            try:
                found = super().load_config(config_path)
            except OmegaConfBaseException:
                raise
            except (ValueError, OSError) as error:  # these do not name the file
                raise ConfigError(f"{path} can't be read: {shown(error)}") from error
        if found is not None and is_file and isinstance(found.config, DictConfig):
            # Otherwise Hydra would merge the file with the registered option of the same name, and warn.
            found.is_schema_source = found.is_schema_source or not config_path.startswith("hydra/")
            rename_keys(found.config, config_path.rpartition("/")[0])
        return found

    def config_exists(self, config_path: str) -> bool:
        """Return whether there is a configuration of this name, or of the new name for it."""
        return super().config_exists(self._renamed(config_path))

    def _renamed(self, config_path: str) -> str:
        return config_path if super().config_exists(config_path) else rename_option(config_path)


def refuse_large(path: Path) -> None:
    """Refuse a YAML file that is too large, or whose aliases stand for too many values.

    A file that is no YAML passes; reading it fails with a message of its own.

    Args:
        path: the file.

    Raises:
        ConfigError: the file is too large; the message names the file and the bound.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # it may wait for ever
        raise ConfigError(f"{path} is not a regular file")
    if found.st_size > MAX_BYTES:
        raise ConfigError(f"{path} has more than {MAX_BYTES:,} bytes, which no configuration needs")
    try:
        with path.open("rb") as file:
            n_values = _n_values(file.read())
    except _NestedError as error:
        raise ConfigError(f"{path} is nested in more than {MAX_NESTED} levels") from error
    except (yaml.YAMLError, UnicodeDecodeError):
        return
    if n_values > MAX_VALUES:
        raise ConfigError(
            f"{path} stands for more than {MAX_VALUES:,} values, aliases counted with what they stand for"
        )


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
