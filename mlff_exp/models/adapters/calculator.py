"""``model=ase``: any ASE calculator, as it is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from mlff_exp.config import ConfigError, finite, judge_import_path, make_importable, top_level
from mlff_exp.models.arguments import refuse_unknown_arguments
from mlff_exp.models.spec import Capabilities, ModelSpec

if TYPE_CHECKING:
    from ase.calculators.calculator import BaseCalculator

TEACHER = "mlff_exp.distill.teacher_calculator"
# Import paths of calculators before 0.2.0, and where each is now.
MOVED_TARGETS = {"mlff_exp.labelling.teacher_calculator": TEACHER}
# Calculators that take any value of an argument and refuse it late or never, and a molecule to try.
TRIED_OUT = {
    "tblite.ase.TBLite": "H2",
    "ase.calculators.lj.LennardJones": "H2",
    "ase.calculators.morse.MorsePotential": "H2",
}
TRIED_AT = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.74))  # Å
WEAKEST_EV_PER_ANG = 1e-9
TRIAL_FAILED = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError)


@dataclass
class AseModel:
    """Any ASE calculator, as it is: it loops over a batch and takes no engine and no precision.

    Attributes:
        calculator: its class or function as ``_target_``, and the arguments; the teacher, GFN2-xTB, if not given.
    """

    name: str = "ase"
    calculator: dict[str, Any] = field(default_factory=lambda: {"_target_": TEACHER})

    def __post_init__(self) -> None:
        if self.calculator.get("_target_") is None:
            raise ConfigError(f"model.calculator needs a _target_, for example {TEACHER}")
        finite("model.calculator", self.calculator)


def make(options: AseModel, trust: Sequence[str]) -> BaseCalculator:
    """Make the calculator.

    Raises:
        ConfigError: the configuration may not import it, it is no calculator, or its arguments are wrong.
    """
    import hydra.utils
    from hydra.errors import InstantiationException

    described = _with_present_target(options.calculator)
    found = _refuse_other_targets(described, trust)
    try:
        if isinstance(found, type):
            refuse_unknown_arguments(found, [key for key in described if not _is_special(key)])
        calculator: BaseCalculator = hydra.utils.instantiate(described, _recursive_=False)
        _try_out(calculator)
    except (InstantiationException, ValueError) as error:
        raise ConfigError(f"model.calculator: {error}") from error
    return calculator


def _try_out(calculator: BaseCalculator) -> None:
    """Evaluate a molecule with a calculator that looks at its arguments only then.

    Raises:
        ValueError: it can't be evaluated, or its atoms feel no force.
    """
    import numpy as np
    from ase import Atoms

    kind = type(calculator)
    symbols = TRIED_OUT.get(f"{kind.__module__}.{kind.__qualname__}")
    if symbols is None:
        return
    try:
        with np.errstate(all="ignore"):  # what is no number is refused below
            forces = Atoms(symbols, TRIED_AT[: len(Atoms(symbols))], calculator=calculator).get_forces()
    except TRIAL_FAILED as error:
        told = f"argument {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{kind.__name__} can't evaluate {symbols} with these arguments: {told}") from error
    if not np.isfinite(forces).all() or np.abs(forces).max() < WEAKEST_EV_PER_ANG:
        strongest = float(np.abs(forces).max())
        raise ValueError(
            f"{kind.__name__} is no force field with these arguments: the force on {symbols} at the distance of a "
            f"bond is {strongest:.3g} eV/Å"
        )
    calculator.reset()


def _with_present_target(calculator: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a calculator; an import path of an earlier version is replaced, with a warning."""
    target = calculator["_target_"]
    present = MOVED_TARGETS.get(target) if isinstance(target, str) else None
    if present is None:
        return dict(calculator)
    warnings.warn(
        f"model.calculator._target_={target} is a name of an earlier version, which 0.3.0 will refuse: write {present}",
        FutureWarning,
        stacklevel=2,
    )
    return {**calculator, "_target_": present}


def _refuse_other_targets(calculator: Mapping[str, Any], allowed: Sequence[str]) -> Any:
    """Let a configuration reach ASE calculators, and functions that say they return one, and nothing else.

    Returns:
        The class or the function.

    Raises:
        ConfigError: another target, or a target among the arguments.
    """
    import hydra.utils
    from ase.calculators.calculator import BaseCalculator
    from hydra.errors import InstantiationException

    target = calculator["_target_"]
    judge_import_path(target, allowed)  # importing it would run its code
    if any(_is_special(key) for key in _keys({k: v for k, v in calculator.items() if k not in ("_target_", "_args_")})):
        raise ConfigError(f"model.calculator: an argument of {target} has a _target_ of its own, which is not followed")
    make_importable(allowed, Path.cwd())
    try:
        found = hydra.utils.get_object(target)
    except (ImportError, InstantiationException, ValueError) as error:
        raise ConfigError(f"model.calculator._target_={target}: {error}") from error
    made = found if isinstance(found, type) else get_type_hints(found).get("return") if callable(found) else None
    if not (isinstance(made, type) and issubclass(made, BaseCalculator)):
        raise ConfigError(
            f"model.calculator._target_={target} is neither an ASE calculator nor a function annotated to return one"
        )
    if top_level(target) not in allowed:  # one module can lead to what another holds
        judge_import_path(f"{found.__module__}.{found.__qualname__}", allowed)
    return found


def _is_special(key: str) -> bool:
    """Whether Hydra takes a key as an instruction."""
    return key in ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield str(key)
            yield from _keys(below)
    elif isinstance(value, list):
        for below in value:
            yield from _keys(below)


SPEC = ModelSpec(
    "ase",
    AseModel,
    "an ASE calculator, as it is",
    f"{__name__}:make",
    native=True,
    code="calculator._target_",
    capabilities=Capabilities(charged=True),
    aliases=("calculator", "xtb", "teacher"),
)
