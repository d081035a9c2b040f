"""Arguments that an ASE calculator would ignore."""

from __future__ import annotations

from typing import Any

import pytest
from ase.calculators.calculator import Calculator, FileIOCalculator

from mlff_exp.config import ConfigError
from mlff_exp.models.adapters.calculator import AseModel, make
from mlff_exp.models.arguments import legal_arguments

PLAIN = ("emt.EMT", "lj.LennardJones", "morse.MorsePotential", "eam.EAM", "tip3p.TIP3P", "tip4p.TIP4P", "acn.ACN")


class LeftToAse(Calculator):
    """Its arguments are those that it has defaults for."""

    default_parameters = {"depth": 1.0}  # noqa: RUF012 (ASE's declaration)


class OfProgram(FileIOCalculator):
    """Any word is one of its program's."""

    default_parameters = {"depth": 1.0}  # noqa: RUF012 (ASE's declaration)


class ReadsItself(Calculator):
    """It may know any word."""

    def __init__(self, **words: Any) -> None:
        super().__init__()


@pytest.mark.parametrize("name", PLAIN)
def test_an_argument_that_nothing_reads_is_refused(name: str) -> None:
    calculator = {"_target_": f"ase.calculators.{name}", "foo": 1}
    with pytest.raises(ConfigError, match=r"(?s)model\.calculator: .*foo"):
        make(AseModel(calculator=calculator), [])


def test_the_message_names_the_legal_arguments() -> None:
    with pytest.raises(
        ConfigError,
        match=r"LennardJones takes no argument 'sigm'; legal ones: epsilon, sigma, .*directory \(.*'sigma'\?\)",
    ):
        make(AseModel(calculator={"_target_": "ase.calculators.lj.LennardJones", "sigm": 3.4}), [])


def test_legal_arguments_are_taken() -> None:
    made = make(AseModel(calculator={"_target_": "ase.calculators.lj.LennardJones", "sigma": 3.4, "label": "x"}), [])
    assert made.parameters["sigma"] == 3.4
    make(AseModel(calculator={"_target_": "ase.calculators.morse.MorsePotential", "rho0": 2.0}), [])


@pytest.mark.parametrize(
    ("name", "argument", "message"),
    [
        ("lj.LennardJones", {"sigma": 1e-300}, r"LennardJones is no force field .*: the force on H2 .* is 0 eV/Å"),
        ("lj.LennardJones", {"epsilon": 0.0}, "LennardJones is no force field"),
        ("lj.LennardJones", {"rc": -5.0}, "LennardJones is no force field"),
        ("lj.LennardJones", {"sigma": 1e300}, "LennardJones can't evaluate H2 with these arguments"),
        ("morse.MorsePotential", {"r0": [1.0, 2.0]}, "MorsePotential can't evaluate H2 with these arguments"),
    ],
)
def test_arguments_that_make_no_force_field_are_refused(name: str, argument: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.calculator: {message}"):
        make(AseModel(calculator={"_target_": f"ase.calculators.{name}", **argument}), [])


def test_what_takes_other_arguments_is_left_alone() -> None:
    assert "depth" in (legal_arguments(LeftToAse) or ())
    assert legal_arguments(OfProgram) is None
    assert legal_arguments(ReadsItself) is None
