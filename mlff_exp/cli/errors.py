"""Put errors while the configuration is composed into one line of plain words.

Nothing in this module imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.errors import ConfigCompositionException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from mlff_exp.cli.schemas import option_types
from mlff_exp.common import DISK_ERRORS
from mlff_exp.config import (
    ConfigError,
    MoleculeSystem,
    did_you_mean,
    shown,
)

# Lines of Hydra's messages that do not help the user of a command.
UNHELPFUL = re.compile(r"append to your config use \+|^(object_type|reference_type)=|^See https?:|^\^+$")
IN_FILE = re.compile(r"^In '([^']*)': \w+ raised while composing config:\n")
# Hydra's and OmegaConf's own words, and what they mean to a user of a command.
PLAIN_WORDS = {
    r"^field '([^']*)' is not Optional$": r"\1 can't be null",
    r"Incompatible value 'None' for field of type '\w+'$": "it can't be null",
    r"Invalid value assigned: \w+ is not a ListConfig, list or tuple\.?$": "it must be a list: [a,b]",
    r"Cannot assign \w+ to Dict\[.*\]$": "it must be a mapping",
    r"Cannot merge DictConfig with ListConfig$": "a mapping and a list can't stand for each other",
    r"Cannot convert '\w+' to string: .*$": "it must be a single value",
    r"Invalid type assigned: \w+ is not a subclass of (\w+)\. value: .*$": r"it must be of type \1",
    r"\w+ \(DictConfig\) does not support deletion$": "it can't be left out; give it another value",
}


class Ended(BaseException):
    """The error that ended a run, wrapped so that Hydra does not print it with the overrides and their passwords.

    Attributes:
        directory: the directory of the run.
        error: the error itself.
    """

    def __init__(self, directory: Path, error: Exception) -> None:
        super().__init__(str(error))
        self.directory, self.error = directory, error


@contextmanager
def ending(directory: Path) -> Iterator[None]:
    """Raise any error of the block, a run in a directory, as `Ended`."""
    try:
        yield
    except Exception as error:
        raise Ended(directory, error) from error


@contextmanager
def composing_errors() -> Iterator[None]:
    """Raise any error of the block, in which a configuration is composed, as a `ConfigError` of one line.

    Raises:
        ConfigError: composing failed; the message is Hydra's in plain words.
        OSError: the disk is full or broken.
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
    """Return the messages of an error and of its causes in one line, with the legal keys for a wrong key."""
    if isinstance(error, ConfigError):  # its message holds that of its cause
        return "; ".join(line.strip() for line in str(error).splitlines())
    lines: list[str] = []
    current: BaseException | None = error
    while current is not None:
        # The search path does not help a user who mistyped a name.
        text = IN_FILE.sub(r"\1: ", _text(current).partition("Config search path:")[0])
        told = message_lines(text)
        if told and told[0].startswith("Ambiguous value for argument"):
            told = [told[0], "to sweep over these values add -m; to give a list, write [a,b]"]
        if isinstance(current, MissingMandatoryValue):
            told = [f"{current.full_key} has no default: {current.full_key}=… has to be given"]
        if not told and not lines and not isinstance(current, ConfigCompositionException):
            told = [type(current).__name__]
        lines += [line for line in told if not any(had.endswith(line) for had in lines)]
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
        # Hydra hands on an error of a file without naming it as the cause.
        current = current.__context__ if isinstance(current, ConfigCompositionException) else current.__cause__
    if merged := re.match("Error merging override (.*)", lines[0]):
        lines[:2] = [f"{shown(merged[1])}: {' '.join(lines[1:2])}"]
    # The first line names the key already.
    lines = [line for line in lines if not (line.startswith("in ") and line.removeprefix("in ") in lines[0])]
    return "; ".join(line.rstrip(".;") for line in lines)


def _text(error: BaseException) -> str:
    """Return the message of an error, with the reason where Hydra leaves it out, and without numbers of the system."""
    text = str(error)
    if text.startswith("Error resolving interpolation") and error.__context__ is not None:
        reason = re.sub(r"^\w+ raised while resolving interpolation: ", "", str(error.__context__).partition("\n")[0])
        return f"{text.partition(', possible')[0]}: {reason}"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: {shown(error.filename)}"
    return re.sub(r"^\w+ raised while resolving interpolation: ", "", text)


def message_lines(text: str) -> list[str]:
    """Return the lines of a message; a list of options is joined with its heading."""
    told: list[str] = []
    for line in text.splitlines():
        stripped = re.sub(r"^full_key: ?", "in ", line.strip())
        for theirs, plain in PLAIN_WORDS.items():
            stripped = re.sub(theirs, plain, stripped)
        if not stripped or stripped == "in" or UNHELPFUL.search(stripped):
            continue
        if line.startswith("\t") and told:
            told[-1] += f"{' ' if told[-1].endswith(':') else ', '}{stripped}"
        else:
            told.append(stripped)
    return told


def _of_another_kind(kind: Any, key: str) -> list[str]:
    """Return hints to the options that have a key which this task, model, system or engine lacks."""
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
