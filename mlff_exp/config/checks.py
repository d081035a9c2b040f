"""Check values of the configuration against bounds and legal words; the error names both."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Protocol

from mlff_exp.common import expand_home
from mlff_exp.config.errors import ConfigError

MAX_SHOWN = 60
LIMITS = "limits"  # key of the metadata of a field
# Words of other programs, and the words of this configuration for them; a registry has its own.
ALIASES = {
    "half": "fp16_autocast",
    "float16": "fp16_autocast",
    "f16": "fp16_autocast",
    "amp": "fp16_autocast",
    "bfloat16": "bf16_autocast",
    "float32": "fp32",
    "f32": "fp32",
    "single": "fp32",
    "float64": "fp64",
    "f64": "fp64",
    "double": "fp64",
    "gpu": "cuda",
    "none": "off",
    "mlflow": "local",
    "sqlite": "local",
}

_aliases: dict[str, set[str]] = {}  # names in the registries by other words for them


class Aliased(Protocol):
    """An entry of a registry that has other words for its name."""

    @property
    def name(self) -> str:
        """The name."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other words for it, in lower case with underscores."""


def learn_aliases(entries: Iterable[Aliased]) -> None:
    """Remember other words for the names of a registry; a message about such a word suggests the name."""
    for entry in entries:
        for alias in entry.aliases:
            _aliases.setdefault(alias, set()).add(entry.name)


def nearest(wrong: str, legal: Iterable[str]) -> str | None:
    """Return the legal word that was probably meant: by another name, by its beginning, or spelt alike.

    Args:
        wrong: the word as given.
        legal: the legal words.

    Returns:
        One of the legal words, or None if none is near.
    """
    words = {word.lower(): word for word in legal}
    low = wrong.lower().replace("-", "_")
    spellings = (low, low.replace("_", ""))
    guesses = [low, *(ALIASES.get(word, "") for word in spellings)]
    guesses += [name for word in spellings for name in sorted(_aliases.get(word, ()))]
    for guess in guesses:
        if guess in words:
            return words[guess]
    # An empty word is the beginning of every word, so it suggests nothing.
    begun = [word for word in words if low and (word.startswith(low) or low.startswith(word))]
    near = get_close_matches(low, begun or words, n=1, cutoff=0.0 if begun else 0.6)
    return words[near[0]] if near else None


def did_you_mean(wrong: str, legal: Iterable[str]) -> str:
    """Return a hint for the end of a message; empty if no legal word is near.

    Args:
        wrong: the word as given.
        legal: the legal words.
    """
    near = nearest(wrong, legal)
    return "" if near is None else f" (did you mean {near!r}?)"


def choose(key: str, value: str, legal: tuple[str, ...], *others: str) -> None:
    """Refuse a word that is not one of the legal ones.

    Args:
        key: key of the value.
        value: the value as given.
        legal: the legal words.
        others: descriptions of other legal values, for the message.

    Raises:
        ConfigError: the word is not legal; the message names the key, the value and the legal words, with a hint.
    """
    if value not in legal:
        listed = ", ".join((*legal, *others))
        raise ConfigError(f"{key}={shown(repr(value))} is not one of: {listed}{did_you_mean(value, legal)}")


def positive(key: str, value: float) -> None:
    """Refuse zero, negative and non-finite numbers.

    Args:
        key: key of the value.
        value: the number.

    Raises:
        ConfigError: the number is refused; the message names the key and the value.
    """
    if not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"{key}={value} must be greater than 0")


def finite(key: str, value: Any) -> None:
    """Refuse numbers in nested mappings and lists that are not finite or need more than 64 bits.

    Args:
        key: key of the value.
        value: a number, or nested mappings and lists of numbers.

    Raises:
        ConfigError: a number is refused; the message names its key and value.
    """
    if isinstance(value, Mapping):
        for name, below in value.items():
            finite(f"{key}.{name}", below)
    elif isinstance(value, list | tuple):
        for number, below in enumerate(value):
            finite(f"{key}[{number}]", below)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value} must be a finite number")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError(f"{key} must be a number of at most 64 bits")


def plain(key: str, name: str, most: int | None = None) -> None:
    """Refuse a name that can't be a part of the name of a file.

    Args:
        key: key of the name.
        name: the name.
        most: characters that it may have; None if others see to that.

    Raises:
        ConfigError: the name has other characters than letters, digits, '.', '_' and '-', ends with a dot, or has too
            many of them.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-]", name):
        raise ConfigError(f"{key}={shown(repr(name))} must be made of letters, digits, '.', '_' and '-'")
    if most is not None and len(name) > most:
        raise ConfigError(f"{key}={shown(repr(name))} has {len(name):,} characters; at most {most} are possible")


def is_file(path: str) -> bool:
    """Return whether there is a file of this path; False for an impossible path."""
    try:
        return expand_home(path).is_file()
    except (OSError, RuntimeError, ValueError):  # too long, an unknown user's home, a zero byte
        return False


def shown(value: object) -> str:
    """Format a value for a message: in one line of at most `MAX_SHOWN` characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


@dataclass(frozen=True)
class Limits:
    """The numbers that a field may hold.

    Attributes:
        most: the largest legal number.
        least: the smallest legal number; None if every number must be greater than ``above`` instead.
        above: bound that every number must exceed, if ``least`` is None.
    """

    most: float
    least: float | None = None
    above: float = 0.0

    def check(self, key: str, value: float) -> None:
        """Refuse a number outside the limits, and a value that is no number.

        Args:
            key: key of the value.
            value: the number.

        Raises:
            ConfigError: the value is refused; the message names the key, the value and the bound.
        """
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or (isinstance(value, float) and math.isnan(value))
        ):
            raise ConfigError(f"{key}={shown(value)} must be a number")
        if self.least is not None:
            if value < self.least:
                bound = "be negative" if self.least == 0 else f"be below {_bound(self.least)}"
                raise ConfigError(f"{key}={shown(value)} must not {bound}")
        elif not value > self.above:
            raise ConfigError(f"{key}={shown(value)} must be greater than {self.above:g}")
        if value > self.most:
            raise ConfigError(f"{key}={shown(value)} must not be above {_bound(self.most)}")


def _bound(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:g}"


def limited(default: Any, most: float, least: float | None = None) -> Any:
    """Make a field of a dataclass with limits.

    Args:
        default: the default, a number or None.
        most: the largest legal number.
        least: the smallest legal number; if None, every number must be greater than 0.
    """
    return field(default=default, metadata={LIMITS: Limits(most, least)})


def within_limits(of: Any, prefix: str = "") -> None:
    """Check the fields of a dataclass against their limits. A field that is None passes.

    Args:
        of: instance of the dataclass.
        prefix: prefix of the keys in messages, as ``task.``.

    Raises:
        ConfigError: a number is outside its limits; the message names the key, the value and the bound.
    """
    for each in fields(of):
        limits = each.metadata.get(LIMITS)
        value = getattr(of, each.name)
        if limits is None or value is None:
            continue
        for one in value if isinstance(value, list) else [value]:
            limits.check(f"{prefix}{each.name}", one)
