"""A sweep on the command line: Hydra composes configurations and launches jobs, `runs` plans and records them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mlff_exp.cli.errors import composing_errors
from mlff_exp.cli.guard import GuardedLoader
from mlff_exp.cli.overrides import n_values, refuse_words
from mlff_exp.cli.words import without_hydra
from mlff_exp.config import rename_word
from mlff_exp.measure import LoadMonitor
from mlff_exp.runs import place_directories, prepare_sweep, refuse_moved, results_root, run_sweep

BASIC_LAUNCHER = ("hydra._internal.core_plugins.basic_launcher", "BasicLauncher")


class HydraHost:
    """The host of a sweep that composes configurations and launches jobs by Hydra, as `runs.SweepHost` describes.

    Args:
        loader: Hydra's loader of configurations.
        config: the composed configuration; the launcher has the same object.
        launcher: Hydra's launcher of jobs.
        params: overrides of every job, by key.
        roots: directories below which runs leave their results.
    """

    def __init__(
        self, loader: Any, config: DictConfig, launcher: Any, params: dict[str, str], roots: list[Path]
    ) -> None:
        self.loader, self.config, self.launcher, self.params, self.roots = loader, config, launcher, params, roots

    @property
    def here(self) -> bool:
        """Whether jobs run one after the other on this machine; on a cluster each job checks what its node can run."""
        # Compared by name, because Hydra makes the classes of plugins again when it looks for them.
        return any((kind.__module__, kind.__name__) == BASIC_LAUNCHER for kind in type(self.launcher).__mro__)

    @property
    def directory(self) -> Path:
        """The directory of the sweep."""
        return Path(self.config.hydra.sweep.dir)

    @property
    def directory_is_given(self) -> bool:
        """Whether the command line names the directory of the sweep."""
        return any("hydra.sweep.dir" in word for word in self.config.hydra.overrides.hydra)

    def place(self, directory: Path) -> None:
        """Choose another directory for the sweep; the launcher and its jobs make it."""
        with read_write(self.config), open_dict(self.config):
            self.config.hydra.sweep.dir = str(directory)

    def settings(self) -> Any:
        """Return the complete configuration as plain values."""
        return OmegaConf.to_container(self.config)

    def parse(self, words: Sequence[str]) -> list[Any]:
        """Parse words of the command line or of a stage into Hydra's overrides.

        Raises:
            ConfigError: a word can't be read, or changes nothing.
        """
        return refuse_words(list(map(rename_word, words)), self.loader)

    def products(self, words: list[Any], planned: int = 0) -> list[list[str]]:
        """Return the overrides of each job of a product of words.

        Args:
            words: overrides, some with several values.
            planned: the number of jobs that are planned already.

        Raises:
            ConfigError: a word has no value, or there would be too many jobs.
        """
        n_values(words, planned)
        jobs: list[list[str]] = BasicSweeper.split_arguments(words, max_batch_size=None)[0]
        return jobs

    def compose(self, overrides: list[str]) -> DictConfig:
        """Compose the configuration of one job, without Hydra's own part."""
        return without_hydra(self.loader.load_sweep_config(self.config, overrides))

    def allow_sweep_words(self, sweep_id: str | None, gate_decision: str, where: str) -> None:
        """Allow the next jobs the words that only a sweep may set. The guard refuses these words from other sources."""
        if isinstance(self.loader, GuardedLoader):
            self.loader.allow_sweep_words(sweep_id, gate_decision, where)


def place_sweep(config: DictConfig) -> list[Path]:
    """Choose the directory of a sweep before its launcher is made.

    Args:
        config: the composed configuration, which gets the directory.

    Returns:
        Directories below which runs leave their results.

    Raises:
        ConfigError: Hydra would write files where the report does not look for them, or the directory can't be used.
    """
    refuse_moved(config.hydra, single=False)
    written: Any = OmegaConf.to_container(config.hydra, resolve=False)
    given = str(place_directories("hydra.sweep.dir", config.hydra.sweep.dir))
    roots = [results_root(written["sweep"]["dir"], given), results_root(written["run"]["dir"], given), Path("outputs")]
    with read_write(config), open_dict(config):  # the launcher and its jobs make this directory
        config.hydra.sweep.dir = given
    return roots


def sweep(host: HydraHost, arguments: Sequence[str]) -> int:
    """Plan and run a sweep, and return its exit code.

    Args:
        host: composes and launches the jobs.
        arguments: the overrides of the command line.

    Raises:
        ConfigError: a job is wrong; no job has run.
    """
    load = LoadMonitor()
    with composing_errors():
        prepared = prepare_sweep(host, arguments)
    return run_sweep(host, prepared, load)
