"""Check values of the configuration against bounds and legal words; the error names both."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

from mlff_exp.config.errors import ConfigError

MAX_SHOWN = 60
LIMITS = "limits"  # of a field, in its metadata
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
    """The legal word that was probably meant: another name for it, its beginning, or one spelt alike."""
    words = {word.lower(): word for word in legal}
    low = wrong.lower().replace("-", "_")
    spellings = (low, low.replace("_", ""))
    guesses = [low, *(ALIASES.get(word, "") for word in spellings)]
    guesses += [name for word in spellings for name in sorted(_aliases.get(word, ()))]
    for guess in guesses:
        if guess in words:
            return words[guess]
    # An empty word begins them all.
    begun = [word for word in words if low and (word.startswith(low) or low.startswith(word))]
    near = get_close_matches(low, begun or words, n=1, cutoff=0.0 if begun else 0.6)
    return words[near[0]] if near else None


def did_you_mean(wrong: str, legal: Iterable[str]) -> str:
    """A hint to be put behind a message; empty where no legal word is near."""
    near = nearest(wrong, legal)
    return "" if near is None else f" (did you mean {near!r}?)"


def choose(key: str, value: str, legal: tuple[str, ...], *others: str) -> None:
    """Refuse a word that is not one of the legal ones.

    Args:
        key: whose value it is.
        value: as given.
        legal: every word.
        others: what else is legal, in words.

    Raises:
        ConfigError: naming the key, the value, the legal values and the nearest of them.
    """
    if value not in legal:
        listed = ", ".join((*legal, *others))
        raise ConfigError(f"{key}={shown(repr(value))} is not one of: {listed}{did_you_mean(value, legal)}")


def positive(key: str, value: float) -> None:
    """Refuse zero, negative and non-finite numbers.

    Raises:
        ConfigError: naming the key and the value.
    """
    if not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"{key}={value} must be greater than 0")


def finite(key: str, value: Any) -> None:
    """Refuse numbers in nested mappings and lists that are not finite, or have more digits than 64 bits hold.

    Raises:
        ConfigError: naming the key and the value.
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


def plain(key: str, name: str) -> None:
    """Refuse a name that is no good as a part of a file's name.

    Raises:
        ConfigError: it has other characters than letters, digits, '.', '_' and '-', or is nothing but dots.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-]", name):
        raise ConfigError(f"{key}={name!r} must be made of letters, digits, '.', '_' and '-'")


def is_file(path: str) -> bool:
    """Return whether there is a file of this path; False for an impossible path."""
    try:
        return Path(path).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):  # too long, an unknown user's home, a zero byte
        return False


def shown(value: object) -> str:
    """A value as it stands in a message: in one line that is not too long."""
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


@dataclass(frozen=True)
class Limits:
    """The numbers that a field may hold.

    Attributes:
        most: the largest.
        least: the smallest; None where it is ``above`` that must be exceeded.
        above: what every number must be greater than.
    """

    most: float
    least: float | None = None
    above: float = 0.0

    def check(self, key: str, value: float) -> None:
        """Refuse a number outside, and what is none.

        Raises:
            ConfigError: naming the key, the value and the bound.
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
    """A field of numbers up to ``most``: from ``least`` on, or else greater than 0.

    Args:
        default: a number or None.
        most: the largest that is legal.
        least: the smallest that is legal.
    """
    return field(default=default, metadata={LIMITS: Limits(most, least)})


def within_limits(of: Any, prefix: str = "") -> None:
    """Hold the fields of a dataclass against their limits; None has none.

    Raises:
        ConfigError: naming the key, the value and the bound.
    """
    for each in fields(of):
        limits = each.metadata.get(LIMITS)
        value = getattr(of, each.name)
        if limits is None or value is None:
            continue
        for one in value if isinstance(value, list) else [value]:
            limits.check(f"{prefix}{each.name}", one)
