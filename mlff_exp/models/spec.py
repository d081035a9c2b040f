"""The facts about a kind of force field that other packages need. Nothing in this module imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mlff_exp.config import PRECISIONS

Forces = Literal["gradient", "own"]


@dataclass(frozen=True)
class Capabilities:
    """The capabilities of a force field.

    Attributes:
        periodic: whether it takes systems that are periodic.
        charged: whether it takes charges, spins and magnetic moments of a structure into account.
        precisions: those that its arithmetic works at.
        traceable: whether its forward can be recorded as a graph of plain operations. Engines that compile need that.
        forces: ``gradient``, and engines differentiate its energy; or ``own``, and it returns energies and forces. Such
            forces are tested against differences of its energy and by circulation.

    Raises:
        ValueError: ``forces`` is neither.
    """

    periodic: bool = True
    charged: bool = False
    precisions: tuple[str, ...] = PRECISIONS
    traceable: bool = True
    forces: Forces = "gradient"

    def __post_init__(self) -> None:
        if self.forces not in get_args(Forces):
            raise ValueError(f"capabilities.forces={self.forces!r} is not one of: {', '.join(get_args(Forces))}")


def has_own_forces(model: object) -> bool:
    """Return whether a force field returns energies and forces, as its attribute ``capabilities`` says."""
    capabilities = getattr(model, "capabilities", None)
    return isinstance(capabilities, Capabilities) and capabilities.forces == "own"


def shorter_cutoffs(model: object) -> tuple[float, ...]:
    """Return the cutoffs (Å) of a force field that are shorter than its longest, as its attribute ``cutoffs`` says."""
    cutoffs: Sequence[float] = getattr(model, "cutoffs", ())
    return tuple(sorted(set(cutoffs)))[:-1]


@dataclass(frozen=True)
class ModelSpec:
    """One kind of force field.

    Attributes:
        name: the word for it in a configuration.
        options: dataclass of its options; its field ``name`` has the name as default.
        summary: one line of help.
        factory: ``package.module:function``, called with the options and the packages that the command line trusts. It
            returns a `ForceField`, a `GraphForceField` or a `LoadedModel`; or, if the spec is ``native``, an ASE
            calculator. It raises `ConfigError`, or another `ValueError`, where the options are wrong.
        truth: ``package.module:function``, called with the options. It returns a `Truth`: the ASE calculator of the
            force field's own package, with which it is compared before it runs. None if there is no such calculator.
        native: whether it runs as it is, as an ASE calculator does: no engine evaluates it, it has no precision of ours
            and no hash of its weights, and nothing is compared with its FP64.
        code: key of the options that names a function of the user's choosing, whose code the factory runs; None if
            there is no such key. A configuration file may say such a key only if the command line trusts the package.
        capabilities: what every force field of this kind can do.
        aliases: other words for it, which an error message understands.
        extra: extra of this package that installs what it needs; None if nothing else is needed.
    """

    name: str
    options: type
    summary: str
    factory: str
    truth: str | None = None
    native: bool = False
    code: str | None = None
    capabilities: Capabilities = Capabilities()
    aliases: tuple[str, ...] = ()
    extra: str | None = None
