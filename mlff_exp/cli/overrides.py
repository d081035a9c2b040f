"""Parse overrides of the configuration, and refuse those that Hydra can't read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.errors import HydraException

from mlff_exp.cli.errors import message_lines
from mlff_exp.config import (
    Config,
    ConfigError,
    shown,
)

MAX_JOBS = 10_000
LONGEST_NAME = 150  # characters of a key or an option; no name of ours is as long
KEYS = tuple(item.name for item in fields(Config))
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def refuse_words(words: Sequence[str], loader: Any) -> list[Override]:
    """Refuse words that Hydra can't read, or about which its own message says too little.

    Args:
        words: overrides of the command line or of a stage.
        loader: Hydra's loader of configurations.

    Returns:
        The words as Hydra's overrides.

    Raises:
        ConfigError: a word is wrong; the message names it.
    """
    groups = set(loader.list_groups(""))
    overrides = parse_words(words, loader)
    for parsed in overrides:
        n_values([parsed])
        _refuse_empty(parsed)
        _refuse_group(parsed, groups, loader)
    return overrides


def refuse_control_characters(words: Iterable[str]) -> None:
    """Refuse words with line breaks or other control characters, which no value has and a message would not survive.

    Raises:
        ConfigError: the message names the word.
    """
    for word in words:
        if _CONTROL.search(word):
            raise ConfigError(f"{shown(ascii(word))} holds a line break or another control character: leave it out")


def parse_words(words: Iterable[str], loader: Any) -> list[Override]:
    """Parse words of a command line or of a stage into Hydra's overrides.

    Args:
        words: overrides, as ``key=value``.
        loader: Hydra's loader of configurations.

    Raises:
        ConfigError: a word can't be read; the message names it and the reason.
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
    """Refuse an empty mapping: Hydra merges it into the present one, which changes nothing."""
    if word.is_delete() or word.is_add() or word.is_sweep_override():
        return
    if word.value() == {}:
        raise ConfigError(f"{word.input_line} changes nothing: a mapping is merged into the present one")


def _refuse_group(word: Override, groups: set[str], loader: Any) -> None:
    """Refuse a word about a group that does not choose one of its options."""
    group = word.key_or_group
    if group in ("hydra", "schema"):
        raise ConfigError(
            f"{word.input_line}: {group} holds groups and keys, and is none to choose from: say one of them"
        )
    if len(group) > LONGEST_NAME:  # Hydra looks for a file of this name
        raise ConfigError(f"{shown(word.input_line)}: there is no key of {len(group):,} characters")
    if group not in groups:
        if word.is_delete() and re.fullmatch(r"\w+(\.\w+)?", group) and group.partition(".")[0] in KEYS:
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
        name = str(getattr(value, "text", value if isinstance(value, str) else "")).strip()
        if not name or len(name) > LONGEST_NAME:
            raise ConfigError(f"{shown(word.input_line)}: {group} is one of: {options}")


def _unread(word: str, error: Exception) -> str:
    """Return in plain words why Hydra's grammar does not take a word."""
    if word.startswith("-"):
        return "flags are for the command line; a stage takes key=value"
    if "=" not in word and not word.startswith("~"):
        return "it is not of the form key=value"
    for quote in "'\"":
        if word.count(quote) % 2:
            return f"a quote {quote} is not closed"
    if any(word.count(opening) != word.count(closing) for opening, closing in ("[]", "{}", "()")):
        return "a bracket is not closed"
    told = [line for line in message_lines(str(error)) if not line.startswith(("Error parsing", "LexerNoViable"))]
    reason = f"{shown(told[0].partition(' expecting ')[0])}; " if told else ""
    return f"{reason}a value with special characters needs quotes: \"key='value'\""


def n_values(words: Iterable[Override], planned: int = 0) -> int:
    """Count the jobs of a product of words, without making the jobs.

    Args:
        words: overrides; the last one of a key counts.
        planned: the number of jobs that are planned already.

    Raises:
        ConfigError: a word has no value or can't be counted, or there are more than `MAX_JOBS` jobs.
    """
    total = 1.0
    for word in {word.get_key_element(): word for word in words}.values():
        if not word.is_sweep_override():
            continue
        count, sweep = 1.0, word._value
        if word.is_interval_sweep():
            raise ConfigError(
                f"{word.input_line}: an interval has infinitely many values: give range(first,end,step) or a list"
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
