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

HIDDEN = "***"
_KEY = (
    r"passw|passphrase|passcode|secret|token|credential|bearer|cookie|(?<![a-z])pwd|(?<![a-z])pass(?![a-z])"
    r"|auth(?!or(?!i))|connection[ _.-]?string|env_set"
    r"|(?:api|access|private|account|auth|encryption|signing|shared|master|ssh|licen[sc]e)[ _.-]?key"
    # Short words by themselves: sigma, spin and uncertain hold some of them.
    r"|(?<![a-z])(?:sas|sig|pw|jwt|otp|dsn|creds?|hmac|psk|csrf|xsrf|cert|pem)(?![a-z])|(?<![a-z])pin(?![a-z_-])"
    r"|session[ _.-]?id|(?<![a-z])signature|webhook"
    r"|(?:my|user|root|admin|login|proxy|db|smtp|imap|ftp|mail|ssh|vpn)(?:pass|pwd|pw)(?![a-z])"
)
SECRET_KEY = re.compile(_KEY, re.IGNORECASE)
# From the start of a word, and bounded: a line of a hundred thousand letters must not take minutes.
_NAME = rf"(?<![\w.@/+~-])[\w.@/+~-]{{0,120}}?(?:{_KEY})[\w.-]{{0,80}}"
# Not at the end of a file's name, which a message may begin with.
_FILES = ("xyz", "extxyz", "pdb", "cif", "sdf", "mol", "gen", "traj", "pt", "safetensors", "npz", "json", "yaml", "py")
_NO_FILE = "".join(rf"(?<!\.{ending})" for ending in _FILES)
# The name of a file in a directory is no key either.
_KEY_OF_COLON = rf"(?<![\w.@/+~-])[\w.@+~-]{{0,120}}?(?:{_KEY})[\w.-]{{0,80}}{_NO_FILE}"
# The user and password of an address, up to the last @ before its path: a password may hold one.
_IN_URI = re.compile(r"(\b[a-z][a-z0-9+.-]{0,30}://)[^/\s]+@", re.IGNORECASE)
# A password with slashes or spaces in it. What follows the colon of a plain address is the number of a port.
_IN_ODD_URI = re.compile(
    r"(\b[a-z][a-z0-9+.-]{0,30}://)(?!\*\*\*@)[^/\s:@'\"]*:(?!\d{1,5}[\s,;)])[^@'\"\n]{0,400}@", re.IGNORECASE
)
_URI = re.compile(r"[a-z][a-z0-9+.-]{0,30}://(?:[^/\s:@]*):(.+)@", re.IGNORECASE)
# A complete word of the command line: its value is the rest of the word.
_OVERRIDE = re.compile(rf"^([+~]*{_NAME}\s*=).+$", re.IGNORECASE | re.DOTALL)
_QUOTED_OVERRIDE = re.compile(rf"(['\"])({_NAME}=)(?:\\.|(?!\1).)*\1", re.IGNORECASE)
# key=value, key: value and "key": "value" in addresses, lists of words, messages, YAML, JSON and code.
_PAIR = re.compile(
    rf"((?:{_NAME}['\"]?\]?\s*:?=|{_KEY_OF_COLON}['\"]?\]?\s*:(?!//))[ \t]*)"
    rf"((?:bearer|basic|digest)[ \t]+[^\s'\",]+|[\"'](?:\\.|[^\"'\\\n])*[\"']|[^\s,&;'\"(){{}}\[\]]+)",
    re.IGNORECASE,
)
_YAML = re.compile(
    rf"^([+-]?\s*(?:-\s+)?[\"']?[\w.-]{{0,80}}(?:{_KEY})[\w.-]{{0,80}}{_NO_FILE}[\"']?:[ \t]+)"
    r"(?![{\[(]|[|>][+-]?\s*$).+$",
    re.I | re.M,
)
# Values on the lines below their key, within brackets, or between tags.
_BELOW = re.compile(
    rf"({_NAME}['\"]?\]?[ \t]*:?[=:][ \t]*(?:[|>][+-]?[ \t]*(?=\n)))(?:\n[+ -]?[ \t]+\S[^\n]*){{1,200}}", re.IGNORECASE
)
_ENCLOSED = re.compile(
    rf"({_NAME}['\"]?\]?[ \t]*:?[=:][ \t]*)(?:\([^()]{{0,4000}}\)|\[[^\[\]]{{0,4000}}\]|\{{[^{{}}]{{0,4000}}\}}"
    r"|\"\"\"[^\"]{0,4000}\"\"\"|'''[^']{0,4000}'''|\$\([^()]{0,4000}\))",
    re.IGNORECASE,
)
_TAG = re.compile(
    rf"(<[\w:.-]{{0,80}}(?:{_KEY})[\w:.-]{{0,80}}(?:\s[^<>]{{0,400}})?>)[^<]{{1,4000}}(?=</)", re.IGNORECASE
)
# Of commands, headers and .netrc.
_FLAG = re.compile(
    rf"((?<![\w-])--[\w-]{{0,80}}?(?:{_KEY})[\w-]{{0,80}}[ \t]+)(?!-)(?:\"[^\"\n]*\"|'[^'\n]*'|\S+)", re.I
)
_USER = re.compile(r"((?<!\S)(?:-u|--user)[ \t=]*['\"]?[^\s:'\"]{1,120}:)[^\s'\"]+")
_SCHEME = re.compile(r"\b(Bearer|Basic|Digest)([ \t]+)(?=[^\s'\",;]*[\d=]|[^\s'\",;]{20})[^\s'\",;]{6,}")
_NETRC = re.compile(r"(\blogin\s+\S{1,120}\s+password\s+)\S+", re.IGNORECASE)
# In prose; what follows may as well be an ordinary word, so it must hold a digit or a sign.
_PROSE = re.compile(
    r"(\b(?:password|passphrase|passwd|secret|token)\s+(?:is|was)\s+)(?=[^\s]*[\d!#$%&*+=?^~])[^\s,;'\"]{4,}",
    re.IGNORECASE,
)
# Such a label would be an odd user, and a path or a port after the host would be odd in an address of e-mail.
_E_MAIL = (
    r"(?:mailto|e-?mail|mail|authors?|contacts?|maintainers?|editors?|owners?|from|to|cc|bcc|by|reply-to|sender)"
    r":[\w.+-]{1,120}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}(?![\w-]|\.\w|[:/])"
)
_PLACES = (
    # What looks like a port may begin a password, if one more word stands before the @ of a host with a path.
    re.compile(r"(\b[a-z][a-z0-9+.-]{0,30}://)[^/\s:@'\"]{0,120}:\d{1,5}[\s,;)][^\s@'\"]{1,120}@(?=[\w.-]+[/:])", re.I),
    re.compile(r"((?<![\w:/])//)[^/\s:@'\"]{1,120}:[^/\s@'\"]{1,400}@"),
    # A user and a password before a host, without the slashes of an address; no label before an address of e-mail.
    re.compile(
        rf"((?<![\w.:/@+-])(?!{_E_MAIL})[\w.+-]{{1,120}}:)(?!\*\*\*)[^/\s@:'\"]{{1,400}}@(?=[\w-])", re.IGNORECASE
    ),
)
_SHAPES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{20,}"
    r"|\bsk-[\w-]{20,}|\bhf_\w{20,}|\bxox[abprs]-[\w-]{10,}|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,}",
    re.DOTALL,
)
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
    return _masked_text(value) if isinstance(value, str) else value


def _masked_text(text: str) -> str:
    text = _hide_learned(text)
    text = _OVERRIDE.sub(rf"\1{HIDDEN}", text) if "\n" not in text else text
    for address in (_IN_URI, _IN_ODD_URI, *_PLACES):
        text = address.sub(rf"\1{HIDDEN}@", text)
    text = _SCHEME.sub(rf"\1\2{HIDDEN}", _USER.sub(rf"\1{HIDDEN}", text))
    if not SECRET_KEY.search(text):
        return _SHAPES.sub(HIDDEN, text)
    text = _PROSE.sub(rf"\1{HIDDEN}", text)
    text = _QUOTED_OVERRIDE.sub(rf"\1\2{HIDDEN}\1", text)
    text = _NETRC.sub(rf"\1{HIDDEN}", _FLAG.sub(rf"\1{HIDDEN}", _TAG.sub(rf"\1{HIDDEN}", text)))
    text = _ENCLOSED.sub(rf"\1{HIDDEN}", _BELOW.sub(rf"\1\n  {HIDDEN}", text))
    return _PAIR.sub(rf"\1{HIDDEN}", _YAML.sub(rf"\1{HIDDEN}", _SHAPES.sub(HIDDEN, text)))


def _hide_learned(text: str) -> str:
    for value in sorted(_learned, key=len, reverse=True):
        # Python's own quoting doubles a backslash.
        for written in {value, repr(value)[1:-1]}:
            text = text.replace(written, HIDDEN)
    return text


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
        elif found := _URI.match(values):
            remember_secret([found[1]])
        remember_secret(os.environ[name] for name in re.findall(r"\$\{oc\.env:([^,}]+)", values) if name in os.environ)


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
