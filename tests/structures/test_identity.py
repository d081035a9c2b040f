"""Hashes that tell one run from another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import molecule

from mlff_exp.structures.identity import calculator_identity, structure_identity


@pytest.mark.parametrize(
    "change",
    [
        lambda atoms: atoms.rattle(1e-9),
        lambda atoms: atoms.set_masses([16, 2, 1]),
        lambda atoms: atoms.set_cell([9, 9, 9]),
        lambda atoms: atoms.set_pbc(True),
        lambda atoms: atoms.set_initial_charges([1, 0, 0]),
        lambda atoms: atoms.set_initial_magnetic_moments([1, 0, 0]),
        lambda atoms: atoms.info.update(charge=1),
    ],
)
def test_whatever_matters_makes_another_structure(change: Callable[[Atoms], object]) -> None:
    atoms = molecule("H2O")
    before = structure_identity(atoms)
    assert before == structure_identity(molecule("H2O"))
    assert before.startswith("H2O ")
    change(atoms)
    assert structure_identity(atoms) != before


def test_a_calculator_is_its_target_its_arguments_and_the_files_they_name(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_text("one")
    first = {"_target_": "ase.calculators.lj.LennardJones", "epsilon": 1.0, "path": str(weights)}
    one = calculator_identity(first)
    assert one.startswith("ase.calculators.lj.LennardJones ")
    assert calculator_identity(dict(reversed(first.items()))) == one
    assert calculator_identity(first | {"epsilon": 1.1}) != one
    weights.write_text("two")
    assert calculator_identity(first) != one
    assert calculator_identity(first | {"path": "x" * 5000})
