"""Hydra's repository of configurations, which reads no file that is too large or holds ambiguous numbers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from mlff_exp.common import learn_secrets
from mlff_exp.config import ConfigError, refuse_yaml, rename_keys, rename_option, shown


class BoundedRepository(ConfigRepository):
    """Hydra's repository of configurations, with a bound on the size of files."""

    def __deepcopy__(self, memo: dict[int, Any]) -> BoundedRepository:
        """Copy the list of sources, which Hydra changes, and share the sources, which hold all registered schemas."""
        copied = copy.copy(self)
        copied.sources = list(self.sources)
        return copied

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
            refuse_yaml(path)
            # Before anything is resolved: a message about a wrong value would repeat it.
            learn_secrets(path.read_text(encoding="utf-8", errors="replace"))
            try:
                found = super().load_config(config_path)
            except OmegaConfBaseException:
                raise
            except (ValueError, OSError) as error:  # these do not name the file
                raise ConfigError(f"{path} can't be read: {shown(error)}") from error
        if found is not None and is_file and isinstance(found.config, DictConfig):
            hydra = found.config._get_node("hydra")  # Hydra looks into it before it composes
            if isinstance(hydra, ListConfig):
                raise ConfigError(f"{config_path}: hydra={shown(hydra)} must be a mapping")
            # Otherwise Hydra would merge the file with the registered option of the same name, and warn.
            found.is_schema_source = found.is_schema_source or not config_path.startswith("hydra/")
            rename_keys(found.config, config_path.rpartition("/")[0])
        return found

    def config_exists(self, config_path: str) -> bool:
        """Return whether there is a configuration of this name, or of the new name for it."""
        return super().config_exists(self._renamed(config_path))

    def _renamed(self, config_path: str) -> str:
        return config_path if super().config_exists(config_path) else rename_option(config_path)
