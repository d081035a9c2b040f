"""Parse and order the flags of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from mlff_exp.common import add_version
from mlff_exp.config import (
    ConfigError,
)


def parser() -> argparse.ArgumentParser:
    """Make Hydra's argument parser with our own ``--version``.

    The parser raises a `ConfigError` for an unknown flag, where argparse would end the process.
    """
    found = argparse.ArgumentParser(
        prog="mlff-exp", parents=[get_args_parser()], add_help=False, conflict_handler="resolve"
    )
    add_version(found)
    found.error = _refuse  # type: ignore[method-assign]  # argparse's own ends the process
    return found


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; mlff-exp --help lists the flags")


def flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the flags and the overrides of a command line.

    Args:
        arguments: the words after the name of the program.

    Raises:
        ConfigError: a flag is unknown or would change nothing, or two flags exclude each other.
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
    """Move the flags and their values before the overrides, because Hydra reads no other order.

    Args:
        arguments: the words after the name of the program; those after ``--`` stay where they are.
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
    """Return whether a command runs something, rather than shows it."""
    return not (given.help or given.hydra_help or given.shell_completion or given.cfg or given.info)
