"""Names and values within MLflow's limits, which `mlflow.utils.validation` and the columns of its database set."""

from __future__ import annotations

import hashlib
import posixpath
import re

# Where a column of MLflow's database is shorter than MLflow's own limit, the length of the column.
MAX_KEY, MAX_RUN_NAME, MAX_DATASET_NAME, MAX_SOURCE = 250, 250, 500, 65_535
MAX_PARAM, MAX_TAG, MAX_EXPERIMENT_NAME = 6000, 5000, 500
INT64 = range(-(2**63), 2**63)


def shorten(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` characters; a shortened text ends with a hash of the original."""
    return text if len(text) <= limit else f"{text[: limit - 9]}_{_hash(text)}"


def valid_key(text: str) -> str:
    """Return a valid name of a parameter, a metric or a tag; a changed name ends with a hash of the original."""
    allowed = re.sub(r"[^/\w.\- :]", "_", text)
    # MLflow treats names as paths, and refuses paths that are not normalised or that leave a directory.
    if posixpath.normpath(allowed) != allowed or allowed in (".", "..") or allowed.startswith(("../", "/")):
        allowed = re.sub(r"^\.+", "_", allowed.replace("/", "_")) or "_"
    return allowed if allowed == text and len(text) <= MAX_KEY else f"{allowed[: MAX_KEY - 9]}_{_hash(text)}"


def model_name(text: str) -> str:
    """Return a valid name of a logged model; MLflow allows no dots and quotes in it."""
    return shorten(re.sub(r"[^\w-]", "_", text) or "_", MAX_KEY)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
