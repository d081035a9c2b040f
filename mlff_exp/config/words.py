"""The words of the configuration, and the bounds that several of its parts share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

Precision = Literal["fp64", "fp32", "tf32", "fp16_autocast", "bf16_autocast"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune"]
TrackingName = Literal["local", "server", "offline"]
Integrator = Literal["verlet", "ase"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
COMPILE_MODES: tuple[CompileMode, ...] = get_args(CompileMode)
TRACKING_NAMES: tuple[TrackingName, ...] = get_args(TrackingName)
INTEGRATORS: tuple[Integrator, ...] = get_args(Integrator)

# Larger than any machine can handle, so that a typing error is refused before it uses up the memory.
MAX_SYSTEMS = 1_048_576  # in a batch
MAX_ATOMS = 16_777_216  # in a batch
MAX_STEPS = 1_000_000_000
MAX_RECORDED_FRAMES = 100_000_000  # frames of all trajectories of a run
MANY = 10_000_000
DAY_S = 86_400.0
YEAR_S = 365 * DAY_S


NATIVE = "native"  # engine and precision of a model that runs as it is, such as an ASE calculator
DEVICE = r"auto|cpu|cuda(:[0-9]{1,4})?"

_learned: set[str] = set()
_native: set[str] = set()


def learn_words(words: Iterable[str]) -> None:
    """Learn names of options that registries add to the configuration, so that they are not masked as secrets."""
    _learned.update(words)


def is_learned(word: str) -> bool:
    """Return whether `learn_words` got this word."""
    return word in _learned


def learn_native(names: Iterable[str]) -> None:
    """Learn names of models that run without an engine and a precision of ours."""
    _native.update(names)


def is_native(model: str) -> bool:
    """Return whether `learn_native` got the name of this model."""
    return model in _native
