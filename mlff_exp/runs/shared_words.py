"""Words of which a sweep has one value, which its runs share: its own, those of Hydra, and the store."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from mlff_exp.config import ConfigError

_SHARED = re.compile(r"(sweep|hydra|tracking)([./@].*)?|gate_required|trust|experiment")
# Lists for the stages, which sweep over them; the words themselves are not swept.
_LISTS = "sweep.parameters."


def refuse_shared(words: Iterable[Any], where: str) -> None:
    """Refuse words that a part of the runs would have and the sweep would not.

    Args:
        words: overrides, as Hydra parses them, that hold for some of the runs.
        where: the stage or the key that holds them.

    Raises:
        ConfigError: a word is one of the sweep; the message names it.
    """
    for word in words:
        if _SHARED.fullmatch(word.key_or_group):
            raise ConfigError(
                f"{where}: {word.input_line}: a sweep has one {word.key_or_group}, which its runs share: "
                "leave it out here"
            )


def refuse_several(words: Iterable[Any]) -> None:
    """Refuse several values of a word of which a sweep has one.

    Args:
        words: overrides of the command line, as Hydra parses them.

    Raises:
        ConfigError: a word has several values; the message names it.
    """
    for word in words:
        key = word.key_or_group
        if word.is_sweep_override() and _SHARED.fullmatch(key) and not key.startswith(_LISTS):
            raise ConfigError(f"{word.input_line}: a sweep has one {key}, which its jobs share")
