"""Hydra's loader for one command, which hands Hydra what was composed to check the command line.

Hydra composes the configuration of a command twice: once for its mode, once for its job or sweep. So does the check of
the command line, in the same way, and each composition takes a fifth of a second.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

from hydra.types import RunMode
from omegaconf import DictConfig

from mlff_exp.cli.guard import GuardedLoader

Checked = dict[tuple[Any, ...], DictConfig]


class CheckedLoader(GuardedLoader):
    """The guarded loader of one command.

    Args:
        config_search_path: as Hydra's.
        words: overrides as they stand on the command line.
        checked: the configurations that wait for Hydra; all loaders of a command share them.
    """

    def __init__(self, config_search_path: Any, words: Sequence[str] = (), *, checked: Checked) -> None:
        super().__init__(config_search_path, words)
        self._checked = checked

    def compose_to_check(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, *, is_mode_asked: bool = False
    ) -> DictConfig:
        """Compose, and keep a copy for Hydra, which asks once for the same.

        Args:
            config_name: name of the main file.
            overrides: words of the command line.
            run_mode: the mode to compose for.
            is_mode_asked: whether the configuration is to say what its mode is; then words of sweeps are legal.
        """
        composed = super().load_configuration(config_name, overrides, run_mode, True, not is_mode_asked)
        self._checked[self._key(config_name, overrides, run_mode, not is_mode_asked)] = copy.deepcopy(composed)
        return composed

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Return what was composed to check the command line, or else compose."""
        checked = self._checked.pop(self._key(config_name, overrides, run_mode, validate_sweep_overrides), None)
        if checked is not None:
            return checked
        return super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)

    def _key(self, config_name: str | None, overrides: list[str], *how: Any) -> tuple[Any, ...]:
        places = tuple(str(place) for place in self.config_search_path.get_path())
        return config_name, tuple(overrides), places, how


def loader_of_command(words: Sequence[str]) -> Any:
    """Return a factory of the loaders of one command, which Hydra uses instead of its own.

    Args:
        words: overrides as they stand on the command line.
    """
    return partial(CheckedLoader, words=tuple(words), checked={})
