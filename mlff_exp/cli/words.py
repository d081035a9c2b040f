"""The words of the command line, looked at before Hydra acts on them, and what Hydra says against them in one line.

Nothing in this module imports torch.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path, get_args_parser
from hydra.conf import HydraConf
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from mlff_exp.cli.schemas import option_types
from mlff_exp.common import DISK_ERRORS, add_version
from mlff_exp.config import (
    ConfigError,
    MoleculeSystem,
    did_you_mean,
    parse_config,
    refuse_ignored,
    refuse_unused,
    shown,
)
from mlff_exp.tasks import check_engines, on_this_machine

MAX_JOBS = 10_000
# Set by the sweeper.
OF_THE_SWEEPER = ("sweep.id", "sweep.gate_decision", "sweep.varied")
LAUNCHERS = ("hydra.launcher", "hydra/launcher")
# What a single run takes no notice of.
OF_SWEEPS = (
    "sweep.",
    "gate_required",
    "hydra.sweeper",
    "hydra/sweeper",
    "hydra.launcher",
    "hydra/launcher",
)
HYDRAS = tuple(item.name for item in fields(HydraConf))
# Lines of Hydra's messages that help nobody who gives a command.
UNHELPFUL = re.compile(r"append to your config use \+|^(object_type|reference_type)=|^See https?:|^\^+$")


class Ended(BaseException):
    """Carries what ended a run past Hydra, which would print its overrides, passwords and all.

    Attributes:
        directory: of the run.
        error: what ended it.
    """

    def __init__(self, directory: Path, error: Exception) -> None:
        super().__init__(str(error))
        self.directory, self.error = directory, error


@contextmanager
def ending(directory: Path) -> Iterator[None]:
    """Raise what ends the block, a run in a directory, as `Ended`."""
    try:
        yield
    except Exception as error:
        raise Ended(directory, error) from error


@contextmanager
def composing_errors() -> Iterator[None]:
    """Raise whatever goes wrong in the block, where words become a configuration, as an error that names them.

    Raises:
        ConfigError: with Hydra's message in one line.
    """
    try:
        yield
    except ConfigError:
        raise
    except RecursionError:
        raise ConfigError("the configuration refers to itself, or is nested too deeply") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise ConfigError(explain_error(error)) from error


def parser() -> argparse.ArgumentParser:
    """Hydra's, with our own ``--version``, and errors that are raised.

    Raises:
        ConfigError: where it is used on flags that are none.
    """
    found = argparse.ArgumentParser(
        prog="mlff-exp", parents=[get_args_parser()], add_help=False, conflict_handler="resolve"
    )
    add_version(found)
    found.error = _refuse  # type: ignore[method-assign]  # argparse's own ends the process
    return found


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; mlff-exp --help says what there is")


def flags(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags and the overrides of a command line.

    Raises:
        ConfigError: an unknown flag, flags that exclude each other, or one that would change nothing.
    """
    given = parser().parse_args(arguments)
    if given.experimental_rerun is not None:
        raise ConfigError("--experimental-rerun reads a pickle, which can run any code: give the overrides instead")
    modes = {
        "--run": given.run,
        "-m": given.multirun,
        "--cfg": given.cfg is not None,
        "--info": given.info is not None,
        "--shell-completion": given.shell_completion,
    }
    chosen = [name for name, asked in modes.items() if asked]
    if len(chosen) > 1:
        hint = ": to see the configuration, leave out -m" if chosen == ["-m", "--cfg"] else ""
        _refuse(f"{' and '.join(chosen)} exclude each other{hint}")
    if given.resolve and not (given.cfg or given.help):
        _refuse("--resolve changes nothing without --cfg")
    if given.package is not None and not given.cfg:
        _refuse("--package changes nothing without --cfg")
    return given


def flags_first(arguments: Sequence[str]) -> list[str]:
    """The same words with the flags, and what belongs to them, before the overrides: Hydra reads no other order.

    Args:
        arguments: of the command line, without the program; what follows ``--`` stays where it is.
    """
    taking = [name for action in parser()._actions if action.nargs is None for name in action.option_strings]
    first, rest = list[str](), list[str]()
    words = iter(arguments)
    for word in words:
        if word == "--":
            return [*first, word, *rest, *words]
        if not word.startswith("-"):
            rest.append(word)
            continue
        first.append(word)
        long = word.startswith("--") and "=" not in word
        named = [name for name in taking if name == word or (long and name.startswith(word))]
        if named:
            first += [value for value in [next(words, None)] if value is not None]
    return [*first, *rest]


def is_job(given: argparse.Namespace) -> bool:
    """Whether something is to be run, rather than shown."""
    return not (given.help or given.hydra_help or given.shell_completion or given.cfg or given.info)


@dataclass(frozen=True)
class Asked:
    """What a command asks for.

    Attributes:
        several: whether it is a sweep.
        hydra: its part of the composed configuration.
        directory: for the results, as it would be named now.
        kept: the nearest directory above that of its results, or that itself, that was there before.
    """

    several: bool
    hydra: DictConfig
    directory: Path
    kept: Path


def refuse_command_line(given: argparse.Namespace, conf: Path, config_name: str) -> Asked:
    """Refuse every word that is wrong, before Hydra makes a directory for the run.

    What a sweep is made of is looked at by the sweeper, before its first run.

    Args:
        given: as from `flags`.
        conf: directory of the configuration.
        config_name: its main file.

    Raises:
        ConfigError: naming the word.
    """
    with composing_errors():
        keys = [_key(word) for word in given.overrides]
        if not (given.multirun or given.config_dir or given.config_name or {"experiment", "hydra.mode"} & {*keys}):
            _refuse_ignored(None, given)
        _refuse_params(given.overrides)
        composed = _composed(given, conf, config_name)
        _refuse_log_levels(composed.hydra)
        several = composed.hydra.mode is RunMode.MULTIRUN
        _refuse_ignored(composed if several else None, given)
        if not several:
            config = parse_config(without_hydra(composed))
            if config.sweep.stages:
                name = config.sweep.name
                raise ConfigError(f"hydra.mode=RUN: {name} has stages, which only a sweep runs: leave it out")
            refuse_ignored(config, given.overrides)
            refuse_unused([(config, given.overrides)])
            check_engines(config)
            on_this_machine(config)
        key = "hydra.sweep.dir" if several else "hydra.run.dir"
        directory = str(OmegaConf.select(composed, key))
        return Asked(several, composed.hydra, Path(directory).absolute(), _existing(key, directory))


def _refuse_log_levels(hydra: DictConfig) -> None:
    """Refuse a level of logging that does not exist: Hydra would make a directory before it fails at it.

    Raises:
        ConfigError: naming the key and the legal levels.
    """
    legal = logging.getLevelNamesMapping()
    for part in ("hydra_logging", "job_logging"):
        for name in ("root", *(f"loggers.{logger}" for logger in OmegaConf.select(hydra, f"{part}.loggers") or ())):
            level = OmegaConf.select(hydra, f"{part}.{name}.level")
            if level is not None and level not in legal and not isinstance(level, int):
                raise ConfigError(f"hydra.{part}.{name}.level={level!r} is not one of: {', '.join(legal)}")


def refuse_package(given: argparse.Namespace, conf: Path, config_name: str) -> None:
    """Refuse to show a part of the configuration that is none.

    Raises:
        ConfigError: naming it.
    """
    if given.package not in (None, "_global_"):
        with composing_errors():
            composed = _composed(given, conf, config_name)
            if OmegaConf.select(composed, given.package) is None:
                keys = [str(key) for key in composed]
                raise ConfigError(f"--package {given.package} is no part of the configuration: {', '.join(keys)}")


def without_hydra(composed: DictConfig) -> DictConfig:
    """The part of a composed configuration that is ours."""
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
    hydra = Hydra.create_main_hydra2("mlff_exp", search_path)
    try:
        refuse_words(given.overrides, hydra.config_loader)
        name = given.config_name or config_name
        mode = RunMode.MULTIRUN if given.multirun else None
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="provider=.* is not available")
            if mode is None:
                # As Hydra finds it out: an experiment may say by itself that it is a sweep.
                asked = hydra.compose_config(name, given.overrides, RunMode.MULTIRUN, validate_sweep_overrides=False)
                mode = asked.hydra.mode or RunMode.RUN
            return hydra.compose_config(name, [*given.overrides, f"hydra.mode={mode.name}"], mode)
    finally:
        GlobalHydra.instance().clear()


def refuse_words(words: Sequence[str], loader: Any) -> None:
    """Refuse words that Hydra can't read, or of which it says less than is known.

    Raises:
        ConfigError: naming the word.
    """
    groups = set(loader.list_groups(""))
    for parsed in parse_words(words, loader):
        n_values([parsed])
        _refuse_empty(parsed)
        _refuse_group(parsed, groups, loader)


def parse_words(words: Iterable[str], loader: Any) -> list[Override]:
    """Words of a command line or of a stage as Hydra's overrides.

    Raises:
        ConfigError: naming the word that can't be read, and why.
    """
    parser, found = OverridesParser.create(config_loader=loader), []
    for word in words:
        if word.startswith("="):
            raise ConfigError(f"{shown(word)} can't be read: there is no key before =")
        try:
            found += parser.parse_overrides([word])
        except (HydraException, ValueError) as error:  # the second for a number of too many digits
            raise ConfigError(f"{shown(word)!r} can't be read: {_unread(word, error)}") from error
    return found


def _refuse_empty(word: Override) -> None:
    """Refuse a mapping without keys, which Hydra merges into what is there."""
    if word.is_delete() or word.is_add() or word.is_sweep_override():
        return
    if word.value() == {}:
        raise ConfigError(f"{word.input_line} changes nothing: a mapping is merged into what is there")


def _refuse_group(word: Override, groups: set[str], loader: Any) -> None:
    """Refuse what is no choice from a group, where a group is chosen from."""
    group = word.key_or_group
    if group not in groups or group in ("hydra", "schema"):
        if word.is_delete() and re.fullmatch(r"\w+(\.\w+)?", group) and not group.startswith("hydra"):
            raise ConfigError(f"{word.input_line}: {group} can't be left out; give it another value")
        return
    options = ", ".join(sorted(loader.get_group_options(group)))
    if word.is_delete() and group != "experiment":
        raise ConfigError(f"{word.input_line}: {group} can't be left out; it is one of: {options}")
    if word.is_add() or word.is_force_add():
        raise ConfigError(f"{word.input_line}: say {group}=…, without a plus; it is one of: {options}")
    if word.package is not None:
        raise ConfigError(f"{word.input_line}: {group} has one place: say {group}=…; it is one of: {options}")
    values = list(word.sweep_iterator()) if word.is_sweep_override() else [word.value()]
    for value in values:
        if not str(getattr(value, "text", value if isinstance(value, str) else "")).strip():
            raise ConfigError(f"{word.input_line}: {group} is one of: {options}")


def _unread(word: str, error: Exception) -> str:
    """Why a word is none of Hydra's grammar, which says it for those who wrote that."""
    if word.startswith("-"):
        return "a flag stands on the command line, and a stage has key=value"
    if "=" not in word and not word.startswith("~"):
        return "it is no key=value"
    for quote in "'\"":
        if word.count(quote) % 2:
            return f"a quote {quote} is not closed"
    if any(word.count(opening) != word.count(closing) for opening, closing in ("[]", "{}", "()")):
        return "a bracket is not closed"
    told = [line for line in _told(str(error)) if not line.startswith(("Error parsing", "LexerNoViable"))]
    reason = f"{shown(told[0].partition(' expecting ')[0])}; " if told else ""
    return f"{reason}a value with special characters needs quotes: \"key='value'\""


def n_values(words: Iterable[Override], planned: int = 0) -> int:
    """How many jobs a product of words comes to, without making them.

    Args:
        words: of them, those given last count where a key comes twice.
        planned: jobs besides.

    Raises:
        ConfigError: none, too many, or values that can't be counted.
    """
    total = 1.0
    for word in {word.get_key_element(): word for word in words}.values():
        if not word.is_sweep_override():
            continue
        count, sweep = 1.0, word._value
        if word.is_interval_sweep():
            raise ConfigError(
                f"{word.input_line}: an interval has no end of values: give range(first,end,step) or a list"
            )
        if isinstance(sweep, RangeSweep):
            count = _n_in_range(word, sweep)
        elif isinstance(sweep, ChoiceSweep):
            count = len(sweep.list)
        else:  # a glob over the options of a group
            count = len(list(word.sweep_iterator()))
        if count == 0:
            raise ConfigError(f"{word.input_line} holds no value")
        total *= count
    if total + planned > MAX_JOBS:
        n_jobs = f"{total + planned:,.0f}" if total < 1e15 else f"{total:.3g}"
        raise ConfigError(f"the sweep has {n_jobs} jobs, at most {MAX_JOBS:,} are possible")
    return round(total)


def _n_in_range(word: Override, sweep: RangeSweep) -> float:
    numbers = [number for number in (sweep.start, sweep.stop, sweep.step) if number is not None]
    if len(numbers) < 3 or any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
        raise ConfigError(f"{word.input_line}: a range needs finite numbers")
    start, stop, step = (float(number) if abs(number) < 1e300 else math.copysign(1e300, number) for number in numbers)
    if step == 0:
        raise ConfigError(f"{word.input_line}: a range can't have a step of 0")
    return max(0.0, min(float(math.ceil(min((stop - start) / step, 1e300))), 1e300))


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
            raise ConfigError(f"{word}: {key} is what a sweep says of its own runs: nobody can set it")
        if word.startswith("+hydra.") and key.split(".")[1] not in HYDRAS:
            raise ConfigError(f"{word} changes nothing; keys of hydra: {', '.join(HYDRAS)}")
        if sweep is None:
            if key.startswith(OF_SWEEPS):
                raise ConfigError(f"{word} changes nothing in a single run: for a sweep add -m")
            continue
        if key == "hydra.mode" and given.multirun and not word.endswith("=MULTIRUN"):
            raise ConfigError(f"{word} and -m exclude each other")
        if key == "hydra/sweeper" and not word.endswith("=staged"):
            raise ConfigError(f"{word}: only hydra/sweeper=staged records what its runs come to")
        if key.startswith("sweep.parameters."):
            if not sweep.sweep.stages:
                raise ConfigError(f"{word} changes nothing: only the stages of an experiment refer to sweep.parameters")
        elif key.startswith("sweep.") and OverridesParser.create().parse_override(word).is_sweep_override():
            raise ConfigError(f"{word}: a sweep has one {key}, which its jobs share")


def _refuse_params(words: Iterable[str]) -> None:
    """Refuse words for every job that go around the command line; before Hydra composes, which can't add to them."""
    for word in words:
        key, params = _key(word), "hydra.sweeper.params"
        if key.startswith(f"{params}."):
            raise ConfigError(f"{word}: say {key.removeprefix(f'{params}.')}={word.partition('=')[2]} instead")
        if key == params:
            raise ConfigError(f"{word}: say key=value for each of them instead")


def _existing(key: str, name: str) -> Path:
    """The nearest directory that is there; that one can be made is tried.

    Raises:
        ConfigError: none can.
    """
    if not name.strip():
        raise ConfigError(f"{key}={name!r} must name a directory")
    directory = Path(name).absolute()
    try:
        kept = next(path for path in (directory, *directory.parents) if path.is_dir())
        directory.mkdir(parents=True, exist_ok=True)
        writable = os.access(directory, os.W_OK | os.X_OK)
        clear_message(directory, kept, ())
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        raise ConfigError(f"{key}={shown(name)}: no such directory can be made: {error.strerror}") from error
    if not writable:
        raise ConfigError(f"{key}={name}: nothing can be written there")
    return kept


def clear_message(directory: Path, kept: Path, files: Iterable[str]) -> None:
    """Leave nothing of a run that was refused.

    Args:
        directory: of the run.
        kept: this directory and what is above was there before.
        files: names of what a run writes there before its work; whatever else there is stays.
    """
    for name in files:
        (directory / name).unlink(missing_ok=True)
    for path in (directory, *directory.parents):
        if path == kept or not path.is_dir() or any(path.iterdir()):
            return
        path.rmdir()


def explain_error(error: BaseException) -> str:
    """The messages of an error and of what caused it in one line, and the legal keys for a wrong one."""
    if isinstance(error, ConfigError):  # says what its cause did
        return "; ".join(line.strip() for line in str(error).splitlines())
    lines: list[str] = []
    current: BaseException | None = error
    while current is not None:
        # Where Hydra looked is of no help to somebody who mistyped a name.
        text = str(current).partition("Config search path:")[0]
        told = _told(text)
        if told and told[0].startswith("Ambiguous value for argument"):
            told = [told[0], "to sweep over these values add -m; to give a list, write [a,b]"]
        if isinstance(current, MissingMandatoryValue):
            told = [f"{current.full_key} has no default: {current.full_key}=… has to be given"]
        if not told and not lines:
            told = [type(current).__name__]
        lines += [line for line in told if line not in lines]
        if mistyped := re.search(r"Could not find '[^']*/([^'/]*)'", text):
            options = [line.strip() for line in text.splitlines() if line.startswith("\t")]
            if hint := did_you_mean(mistyped[1], options):
                lines[-1] += hint
        if "Key 'experiment' not in 'Config'" in text:
            lines.append("the file of an experiment begins with '# @package _global_'")
        if isinstance(current, ConfigKeyError | ConfigAttributeError) and is_dataclass(current.object_type):
            kind = current.object_type
            names = [item.name for item in fields(kind)]
            lines.append(f"legal keys: {', '.join(names)}{did_you_mean(str(current.key), names)}")
            lines += _of_another_kind(kind, str(current.key))
        current = current.__cause__
    if merged := re.match("Error merging override (.*)", lines[0]):
        lines[:2] = [f"{shown(merged[1])}: {' '.join(lines[1:2])}"]
    # Which key it was stands in what was said of it.
    lines = [line for line in lines if not (line.startswith("in ") and line.removeprefix("in ") in lines[0])]
    return "; ".join(line.rstrip(".;") for line in lines)


def _told(text: str) -> list[str]:
    """The lines of a message, a list of options as one with its heading."""
    told: list[str] = []
    for line in text.splitlines():
        stripped = re.sub(r"^full_key: ?", "in ", line.strip())
        if not stripped or stripped == "in" or UNHELPFUL.search(stripped):
            continue
        if line.startswith("\t") and told:
            told[-1] += f"{' ' if told[-1].endswith(':') else ', '}{stripped}"
        else:
            told.append(stripped)
    return told


def _of_another_kind(kind: Any, key: str) -> list[str]:
    """Where a key would be legal that is none of this kind of task, model, system or engine."""
    if kind is MoleculeSystem and key == "path":
        return ["a structure of your own: system=file system.path=…"]
    for group, kinds in option_types().items():
        if kind in kinds.values():
            having = [name for name, other in kinds.items() if key in [item.name for item in fields(other)]]
            if having:
                shown_key = f"{group}.{key}"
                hint = f"{shown_key} belongs to {' and '.join(f'{group}={name}' for name in having)}"
                of_stages = "an experiment takes the numbers of its stages as sweep.parameters.…"
                return [hint, of_stages] if group == "task" else [hint]
    return []
