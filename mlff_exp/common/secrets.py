"""Mask secrets in records and messages: passwords, tokens, keys, and values of environment variables.

There are two methods. Patterns find secrets by the words next to them. `learn_secrets` remembers the secret values of a
configuration, so that they are masked in every message.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO, cast

from mlff_exp.common.secret_patterns import HIDDEN, SECRET_KEY, URI, mask_text

# A shorter value stands in ordinary words as well; keys and patterns still hide it.
_SHORTEST = 6
_learned: set[str] = set()
_read: set[str] = set()  # names of environment variables since `reading` began


def mask_secrets(value: Any, key: str = "") -> Any:
    """Return the same values with secrets replaced by stars.

    Args:
        value: text, or mappings and lists of values.
        key: key of the value; a key such as ``api_key`` masks everything below it.
    """
    if value is not None and SECRET_KEY.search(key):
        return HIDDEN
    if isinstance(value, Mapping):
        return {name: mask_secrets(below, str(name)) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [mask_secrets(below) for below in value]
    return mask_text(_hide_learned(value)) if isinstance(value, str) else value


def _hide_learned(text: str) -> str:
    for value in sorted(_learned, key=len, reverse=True):
        # Python's own quoting doubles a backslash.
        for written in {value, repr(value)[1:-1]}:
            text = text.replace(written, HIDDEN)
    return text


# Names of environment variables that a text of a configuration asks for.
ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:\s*['\"]?([^,}\s'\"]+)")


def remember_secret(values: Iterable[str]) -> None:
    """Hide these values from now on, wherever they stand in a text, if they are long enough."""
    _learned.update(value for value in values if len(value) >= _SHORTEST and not value.startswith("${"))


def learn_secrets(values: Any, key: str = "") -> None:
    """Remember the secrets of a configuration: what stands under such keys, and passwords in addresses."""
    if isinstance(values, Mapping):
        for name, below in values.items():
            learn_secrets(below, key if SECRET_KEY.search(key) else str(name))
    elif isinstance(values, list | tuple):
        for below in values:
            learn_secrets(below, key)
    elif isinstance(values, str):
        if SECRET_KEY.search(key):
            remember_secret([values])
        elif found := URI.match(values):
            remember_secret([found[1]])
        remember_secret(os.environ[name] for name in ENVIRONMENT.findall(values) if name in os.environ)


def learn_overrides(overrides: Iterable[str]) -> None:
    """Remember the secrets among words of the command line, before a message can repeat them."""
    for override in overrides:
        key, _, value = override.partition("=")
        # As it was typed, and each part of a list that is swept.
        for part in {value, *value.split(",")}:
            learn_secrets(part.strip("'\""), key)


def env_resolver(name: str, *default: Any) -> str | None:
    """Resolve ``${oc.env:NAME,default}`` as OmegaConf does, and remember that the variable was read.

    Raises:
        KeyError: the variable is not set and there is no default.
    """
    if name in os.environ:
        _read.add(name)
        return os.environ[name]
    if not default:
        raise KeyError(f"Environment variable '{name}' not found")
    return None if default[0] is None else str(default[0])


@contextmanager
def reading_secrets() -> Iterator[set[str]]:
    """Yield the set of environment variables that are read within the block."""
    global _read
    before, _read = _read, set()
    try:
        yield _read
    finally:
        _read = before


def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an unexpected error as Python does, without secrets."""
    print(mask_secrets("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end="")


def mask_logs() -> None:
    """Mask secrets in what the present handlers of the root logger write, such as ``run.log``."""
    for handler in logging.getLogger().handlers:
        if _without_secrets not in handler.filters:
            handler.addFilter(_without_secrets)


def _without_secrets(record: logging.LogRecord) -> bool:
    record.msg, record.args = mask_secrets(record.getMessage()), ()
    if record.exc_info:
        record.exc_text = mask_secrets("".join(traceback.format_exception(*record.exc_info)).rstrip())
    return True


class MaskedStream:
    """A stream that masks secrets in its text; everything else is that of the wrapped stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without secrets."""
        self._stream.write(cast(str, mask_secrets(text)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines without secrets."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
