"""The reason why a run did not finish."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FailureKind(StrEnum):
    """Kinds of failure that are no exception of the task; an exception is recorded by the name of its class."""

    TIMEOUT = "timeout"
    KILLED = "killed"
    INTERRUPTED = "interrupted"
    TERMINATED = "terminated"
    HUNG_UP = "hung_up"
    CRASH = "crash"
    OUT_OF_MEMORY = "out_of_memory"
    UNAVAILABLE = "unavailable"
    REFUSED = "ConfigError"
    REPLACED = "replaced"


@dataclass(frozen=True)
class Failure:
    """The reason why a run did not finish.

    Attributes:
        kind: a `FailureKind`, or the name of an exception's class.
        message: text for the user.
    """

    kind: str
    message: str
