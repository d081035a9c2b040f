"""Names and values as MLflow takes them: `mlflow.utils.validation` and the columns of its database have the rules."""

from __future__ import annotations

import hashlib
import posixpath
import re

# Shorter than MLflow's own limits where a column of its database is.
MAX_KEY, MAX_RUN_NAME, MAX_DATASET_NAME, MAX_SOURCE = 250, 250, 500, 65_535
MAX_PARAM, MAX_TAG, MAX_EXPERIMENT_NAME = 6000, 5000, 500
INT64 = range(-(2**63), 2**63)


def shorten(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` characters; one that is cut ends with a hash of the whole."""
    return text if len(text) <= limit else f"{text[: limit - 9]}_{_hash(text)}"


def valid_key(text: str) -> str:
    """Return a name for a parameter, a metric or a tag; one that has to be changed ends with a hash of the original."""
    allowed = re.sub(r"[^/\w.\- :]", "_", text)
    # MLflow takes names for paths, and refuses those that could be written shorter or lead out of a directory.
    if posixpath.normpath(allowed) != allowed or allowed in (".", "..") or allowed.startswith(("../", "/")):
        allowed = re.sub(r"^\.+", "_", allowed.replace("/", "_")) or "_"
    return allowed if allowed == text and len(text) <= MAX_KEY else f"{allowed[: MAX_KEY - 9]}_{_hash(text)}"


def model_name(text: str) -> str:
    """Return a name for a logged model, in which MLflow takes neither dots nor quotes nor some more."""
    return shorten(re.sub(r"[^\w-]", "_", text) or "_", MAX_KEY)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
