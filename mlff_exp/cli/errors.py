"""Errors while the configuration is composed, each in one line of plain words.

Nothing in this module imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from mlff_exp.cli.schemas import option_types
from mlff_exp.common import DISK_ERRORS
from mlff_exp.config import (
    ConfigError,
    MoleculeSystem,
    did_you_mean,
    shown,
)

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


def explain_error(error: BaseException) -> str:
    """The messages of an error and of what caused it in one line, and the legal keys for a wrong one."""
    if isinstance(error, ConfigError):  # says what its cause did
        return "; ".join(line.strip() for line in str(error).splitlines())
    lines: list[str] = []
    current: BaseException | None = error
    while current is not None:
        # Where Hydra looked is of no help to somebody who mistyped a name.
        text = str(current).partition("Config search path:")[0]
        told = message_lines(text)
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


def message_lines(text: str) -> list[str]:
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
