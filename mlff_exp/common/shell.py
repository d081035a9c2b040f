"""Format words for a shell and for Hydra, so that a printed command can be pasted."""

from __future__ import annotations

import re
import shlex


def shell_command(*words: object) -> str:
    """Return a command line in which each word reaches the program as it is."""
    return shlex.join(str(word) for word in words)


def hydra_override(key: str, value: object) -> str:
    """Return ``key=value`` as Hydra takes it; a value with characters that mean something to Hydra is quoted."""
    text = str(value)
    if shlex.quote(text) == text and "=" not in text and "," not in text and ":" not in text:
        return f"{key}={text}"
    from hydra.core.override_parser.types import Quote, QuotedString

    # OmegaConf would take ${…} for a reference, and halves backslashes before one.
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return f"{key}={QuotedString(text, Quote.single).with_quotes()}"
