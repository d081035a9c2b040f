"""Refuse arguments of an ASE calculator that it would ignore."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mlff_exp.config import PLAIN_ASE, did_you_mean

if TYPE_CHECKING:
    from ase.calculators.calculator import BaseCalculator

NAMED_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
# Classes that read their arguments themselves and refuse unknown ones.
_REFUSES = ("ase.calculators.eam.EAM",)


def refuse_unknown_arguments(kind: type[BaseCalculator], given: Iterable[str]) -> None:
    """Refuse arguments that a class of calculators takes and never reads.

    Args:
        kind: the class.
        given: names of the arguments.

    Raises:
        ValueError: an argument is unknown. The message names it and the legal ones.
    """
    legal = legal_arguments(kind)
    for name in given:
        if legal is not None and name not in legal:
            raise ValueError(
                f"{kind.__name__} takes no argument {name!r}; legal ones: {', '.join(legal)}{did_you_mean(name, legal)}"
            )


def legal_arguments(kind: type[BaseCalculator]) -> tuple[str, ...] | None:
    """Return the names of all arguments of a class of calculators; None if they can't be found out.

    ASE keeps any keyword as a parameter, and some calculators pass their parameters on to a program. So the names are
    known for two kinds of classes only: ASE's own calculators that start no program, and classes that leave the reading
    of arguments to ASE.
    """
    from ase.calculators.calculator import Calculator, FileIOCalculator

    if not issubclass(kind, Calculator) or issubclass(kind, FileIOCalculator):
        return None
    path = f"{kind.__module__}.{kind.__qualname__}"
    is_plain = kind.__module__ in {f"ase.calculators.{module}" for module in PLAIN_ASE}
    leaves_it_to_ase = kind.__init__ is Calculator.__init__ and kind.set is Calculator.set and kind.default_parameters
    if path in _REFUSES or not (is_plain or leaves_it_to_ase):
        return None
    names = list(kind.default_parameters)
    for base in kind.__mro__:
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]  # type: ignore[misc]
        names += [parameter.name for parameter in parameters if parameter.kind in NAMED_KINDS]
        if base is Calculator or all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return tuple(dict.fromkeys(names))
