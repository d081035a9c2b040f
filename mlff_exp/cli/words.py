"""Refuse wrong words of the command line, before Hydra makes a directory for the run.

Nothing in this module imports torch.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path
from hydra.conf import HydraConf
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write

from mlff_exp.cli.checked import CheckedLoader
from mlff_exp.cli.errors import composing_errors
from mlff_exp.cli.logging_trial import refuse_logging
from mlff_exp.cli.overrides import refuse_words
from mlff_exp.common import DISK_ERRORS
from mlff_exp.config import (
    Config,
    ConfigError,
    Sweep,
    parse_config,
    refuse_ignored,
    refuse_missing,
    shown,
)
from mlff_exp.tasks import check_engines, on_this_machine, refuse_unused

# Set by the sweeper.
OF_THE_SWEEPER = ("sweep.id", "sweep.gate_decision", "sweep.varied")
LAUNCHERS = ("hydra.launcher", "hydra/launcher")
# Keys that have no effect in a single run.
OF_SWEEPS = (
    "sweep.",
    "gate_required",
    "hydra.sweeper",
    "hydra/sweeper",
    "hydra.launcher",
    "hydra/launcher",
)
# Hydra names a job after the module of its function, which is `app.job`.
JOB_NAME = "app"
# Fields of a sweep that change no run: a file may have them for the sweeps that it is also used for.
OF_REPORTS = ("name", "targets")
HYDRAS = tuple(item.name for item in fields(HydraConf))


@dataclass(frozen=True)
class Asked:
    """The run or sweep that a command requests.

    Attributes:
        several: whether it is a sweep.
        hydra: Hydra's own part of the composed configuration.
        directory: the directory for the results, as it would be named now.
        kept: the nearest existing directory: that of the results, or one above it.
    """

    several: bool
    hydra: DictConfig
    directory: Path
    kept: Path


def refuse_command_line(given: argparse.Namespace, conf: Path, config_name: str) -> Asked:
    """Refuse every wrong word, before Hydra makes a directory for the run.

    The sweeper checks the jobs of a sweep, before its first run.

    Args:
        given: the flags and overrides, from `flags`.
        conf: directory of the configuration.
        config_name: name of its main file.

    Raises:
        ConfigError: a word is wrong; the message names it.
    """
    with composing_errors():
        keys = [_key(word) for word in given.overrides]
        if not (given.multirun or given.config_dir or given.config_name or {"experiment", "hydra.mode"} & {*keys}):
            _refuse_ignored(None, given)
        _refuse_params(given.overrides)
        composed = _composed(given, conf, config_name)
        refuse_missing(composed.trust, Path.cwd())
        _refuse_log_levels(composed.hydra)
        _refuse_verbose(composed.hydra)
        several = composed.hydra.mode is RunMode.MULTIRUN
        _refuse_ignored(composed if several else None, given)
        if not several:
            config = parse_config(without_hydra(composed))
            _refuse_of_sweeps(composed.hydra, config, given)
            refuse_ignored(config, given.overrides)
            refuse_unused([(config, given.overrides)])
            check_engines(config)
            on_this_machine(config)
        key = "hydra.sweep.dir" if several else "hydra.run.dir"
        if OmegaConf.is_missing(composed.hydra[key.split(".")[1]], "dir"):
            raise ConfigError(f"{key}=??? must name a directory")
        directory = str(OmegaConf.select(composed, key))
        kept = _existing(key, directory)
        refuse_logging(composed)
        return Asked(several, composed.hydra, Path(directory).absolute(), kept)


def _refuse_of_sweeps(hydra: DictConfig, config: Config, given: argparse.Namespace) -> None:
    """Refuse a single run of a file that describes a sweep: what the file says of the sweep would have no effect.

    Args:
        hydra: Hydra's own part of the composed configuration.
        config: the rest of it.
        given: as from `flags`.

    Raises:
        ConfigError: the message names the first key, and how the sweep is run.
    """
    instead = "for a sweep add -m"
    if said := next((word for word in given.overrides if _key(word) == "hydra.mode"), None):
        instead = f"leave out {said}"
    if config.sweep.stages:
        raise ConfigError(f"{config.sweep.name} has stages, which only a sweep runs: {instead}")
    usual = Sweep()
    found = {
        f"sweep.{item.name}": getattr(config.sweep, item.name)
        for item in fields(Sweep)
        if item.name not in OF_REPORTS and getattr(config.sweep, item.name) != getattr(usual, item.name)
    }
    launcher = OmegaConf.select(hydra, "runtime.choices")["hydra/launcher"]
    found |= {"gate_required": True} if config.gate_required else {}
    found |= {"hydra.sweeper.params": dict(hydra.sweeper.params)} if hydra.sweeper.get("params") else {}
    found |= {"hydra/launcher": launcher} if launcher != "basic" else {}
    for key, value in found.items():
        raise ConfigError(f"{key}={shown(value)} comes from a file, and changes nothing in a single run: {instead}")


def _refuse_log_levels(hydra: DictConfig) -> None:
    """Refuse a level of logging that does not exist. Hydra would fail only after it made a directory.

    Raises:
        ConfigError: a level is unknown; the message names the key and the legal levels.
    """
    legal = logging.getLevelNamesMapping()
    for part in ("hydra_logging", "job_logging"):
        for name in ("root", *(f"loggers.{logger}" for logger in OmegaConf.select(hydra, f"{part}.loggers") or ())):
            level = OmegaConf.select(hydra, f"{part}.{name}.level")
            if level is not None and level not in legal and not isinstance(level, int):
                raise ConfigError(f"hydra.{part}.{name}.level={level!r} is not one of: {', '.join(legal)}")


def _refuse_verbose(hydra: DictConfig) -> None:
    """Refuse a value of ``hydra.verbose`` that Hydra only asserts to be another.

    Raises:
        ConfigError: it is no boolean, and neither the name of a logger nor a list of such.
    """
    verbose = OmegaConf.select(hydra, "verbose")
    names = [verbose] if isinstance(verbose, str) else verbose
    is_list = isinstance(names, list | ListConfig) and all(isinstance(name, str) for name in names)
    if not (isinstance(verbose, bool) or is_list):
        raise ConfigError(
            f"hydra.verbose={shown(verbose)} must be true, false, the name of a logger or a list of names"
        )


def refuse_package(given: argparse.Namespace, conf: Path, config_name: str) -> None:
    """Refuse ``--package`` with a part that the configuration does not have.

    Args:
        given: the flags and overrides, from `flags`.
        conf: directory of the configuration.
        config_name: name of its main file.

    Raises:
        ConfigError: there is no such part; the message names those that exist.
    """
    if given.package not in (None, "_global_"):
        with composing_errors():
            composed = _composed(given, conf, config_name)
            if OmegaConf.select(composed, given.package) is None:
                keys = [str(key) for key in composed]
                raise ConfigError(f"--package {given.package} is no part of the configuration: {', '.join(keys)}")


def without_hydra(composed: DictConfig) -> DictConfig:
    """Return a copy of a composed configuration without Hydra's own part."""
    ours = composed.copy()
    with read_write(ours), open_dict(ours):
        del ours["hydra"]
    return ours


def _composed(given: argparse.Namespace, conf: Path, config_name: str) -> DictConfig:
    search_path = create_automatic_config_search_path(None, "mlff_exp.__main__", given.config_path or str(conf))
    if given.config_dir is not None:
        directory = Path(given.config_dir).absolute()
        if not directory.is_dir():
            raise ConfigError(f"-cd {given.config_dir}: Additional config directory '{directory}' not found")
        search_path.prepend("command-line", f"file://{directory}", SearchPathQuery(provider="schema"))
    loader = cast(CheckedLoader, Hydra.create_main_hydra2(JOB_NAME, search_path).config_loader)
    try:
        refuse_words(given.overrides, loader)
        name = given.config_name or config_name
        mode = RunMode.MULTIRUN if given.multirun else None
        words = list(given.overrides)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="provider=.* is not available")
            # Everything here is as Hydra does it afterwards, so that Hydra need not compose again.
            if mode is None:  # the file of an experiment may say that it is a sweep
                mode = loader.compose_to_check(name, words, RunMode.MULTIRUN, is_mode_asked=True).hydra.mode
            if mode is None or given.multirun:
                mode = mode or RunMode.RUN
                words.append(f"hydra.mode={mode.name}")
            return loader.compose_to_check(name, words, mode)
    finally:
        GlobalHydra.instance().clear()


def _key(word: str) -> str:
    return re.split("[=@]", word.lstrip("+~"), maxsplit=1)[0]


def _refuse_ignored(sweep: DictConfig | None, given: argparse.Namespace) -> None:
    """Refuse words that change nothing in a single run, or in a sweep.

    Args:
        sweep: the composed configuration of a sweep; None for a single run.
        given: as from `flags`.
    """
    for word in given.overrides:
        key = _key(word)
        if key in OF_THE_SWEEPER:
            raise ConfigError(f"{word}: only a sweep sets {key}, for its own runs")
        if word.startswith("+hydra.") and key.split(".")[1] not in HYDRAS:
            raise ConfigError(f"{word} changes nothing; keys of hydra: {', '.join(HYDRAS)}")
        if sweep is None:
            if key.startswith(OF_SWEEPS):
                raise ConfigError(f"{word} changes nothing in a single run: for a sweep add -m")
            continue
        if key == "hydra.mode" and given.multirun and not word.endswith("=MULTIRUN"):
            raise ConfigError(f"{word} and -m exclude each other")
        if key == "hydra/sweeper" and not word.endswith("=staged"):
            raise ConfigError(f"{word}: only hydra/sweeper=staged records the results of its runs")
        if key.startswith("sweep.parameters.") and not sweep.sweep.stages:
            raise ConfigError(f"{word} changes nothing: only the stages of an experiment refer to sweep.parameters")


def _refuse_params(words: Iterable[str]) -> None:
    """Refuse ``hydra.sweeper.params``. This has to happen before Hydra composes, because Hydra can't add keys there."""
    for word in words:
        key, params = _key(word), "hydra.sweeper.params"
        if key.startswith(f"{params}."):
            raise ConfigError(f"{word}: say {key.removeprefix(f'{params}.')}={word.partition('=')[2]} instead")
        if key == params:
            raise ConfigError(f"{word}: say key=value for each of them instead")


def _existing(key: str, name: str) -> Path:
    """Return the nearest existing directory, after a trial whether the named one can be made and written.

    Raises:
        ConfigError: the directory can't be made or written.
    """
    if not name.strip():
        raise ConfigError(f"{key}={name!r} must name a directory")
    directory = Path(name).absolute()
    try:
        kept = next(path for path in (directory, *directory.parents) if path.is_dir())
        try:
            directory.mkdir(parents=True, exist_ok=True)
            writable = os.access(directory, os.W_OK | os.X_OK)
        finally:
            clear_message(directory, kept, ())
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        raise ConfigError(f"{key}={shown(name)}: no such directory can be made: {error.strerror}") from error
    if not writable:
        raise ConfigError(f"{key}={name}: nothing can be written there")
    return kept


def clear_message(directory: Path, kept: Path, files: Iterable[str]) -> None:
    """Remove the files and the directory of a run that was refused.

    Args:
        directory: the directory of the run.
        kept: the nearest directory that existed before the run; it stays.
        files: names of the files that a run writes before its work; other files stay.
    """
    for name in files:
        (directory / name).unlink(missing_ok=True)
    for path in (directory, *directory.parents):
        if path == kept:
            return
        try:
            path.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):  # those were never made
                return
