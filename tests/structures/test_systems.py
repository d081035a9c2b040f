"""The systems that have a name: formula, size, cell, distances, and what a relaxation makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from mlff_exp.cli.schemas import named_options
from mlff_exp.config.errors import ConfigError
from mlff_exp.config.systems import CRYSTALS, MOLECULES, Crystal
from mlff_exp.dynamics.bonds import changed_bonds, find_bonds
from mlff_exp.dynamics.relaxation import find_minimum
from mlff_exp.engines.factory import make_engine
from mlff_exp.models.checkpoint import load_checkpoint
from mlff_exp.structures.systems import build_systems

FORMULAS = {
    "benzene": "C6H6", "ethanol": "C2H6O", "water": "H2O", "carbon_dioxide": "CO2", "ammonia": "H3N", "methane": "CH4",
    "acetamide": "C2H5NO", "pyridine": "C5H5N", "aspirin": "C9H8O4", "paracetamol": "C8H9NO2",
    "alanine_dipeptide": "C6H12N2O2", "silicon": "Si64", "copper": "Cu32", "nacl": "Cl32Na32", "ice": "H128O64",
}  # fmt: skip
# Lengths of the edges of the default supercell, Å.
EDGES = {
    "silicon": [10.862] * 3, "copper": [7.23] * 3, "nacl": [11.28] * 3, "ice": [9.0142, 15.613, 14.72],
}  # fmt: skip
CLOSEST = 0.75  # of the sum of the covalent radii; a bond of hydrogen and oxygen has 1.0


def built(name: str, **options: int) -> Atoms:
    option: Any = Crystal(name, **options) if options else named_options()["system"][name]
    (atoms,) = build_systems(option).values()
    return atoms


def test_every_name_has_a_formula() -> None:
    assert set(FORMULAS) == {*MOLECULES, *CRYSTALS}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_system_has_its_formula_and_no_atoms_too_close(name: str) -> None:
    atoms = built(name)
    assert atoms.get_chemical_formula() == FORMULAS[name]
    assert atoms.pbc.tolist() == [name in CRYSTALS] * 3
    i, j, distance = neighbor_list("ijd", atoms, 3.0)
    assert (distance > CLOSEST * (covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]])).all()
    if name in CRYSTALS:
        np.testing.assert_allclose(atoms.cell.cellpar(), [*EDGES[name], 90, 90, 90])


@pytest.mark.parametrize("name", CRYSTALS)
def test_a_supercell_repeats_the_cell(name: str) -> None:
    one, three = built(name, supercell=1), built(name, supercell=3)
    assert (len(one), len(three)) == (CRYSTALS[name], 27 * CRYSTALS[name])
    assert Crystal(name, 3).n_atoms == len(three)
    np.testing.assert_allclose(three.cell, 3 * one.cell)


def test_ice_obeys_the_ice_rules_and_has_no_dipole() -> None:
    ice = built("ice", supercell=1)
    first, vectors = neighbor_list("iD", ice, {("O", "H"): 1.2})
    oxygens = np.flatnonzero(ice.numbers == 8)
    assert [(first == each).sum() for each in oxygens] == [2] * 8, "each oxygen has two hydrogens of its own"
    near = neighbor_list("i", ice, {("O", "H"): 1.9})
    assert [(near == each).sum() for each in oxygens] == [4] * 8, "and two of its neighbours"
    np.testing.assert_allclose(vectors[np.isin(first, oxygens)].sum(axis=0), 0, atol=2e-3)


def test_a_crystal_of_too_many_atoms_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"system\.supercell=1000 must not be above 100"):
        Crystal("copper", 1000)
    with pytest.raises(ConfigError, match=r"system\.name='coper' is not one of: .*did you mean 'copper'"):
        Crystal("coper")


@pytest.mark.parametrize(("name", "options"), [("alanine_dipeptide", {}), ("ice", {"supercell": 1})])
def test_a_small_student_relaxes_it_and_keeps_its_bonds(name: str, options: dict[str, int]) -> None:
    engine = make_engine(load_checkpoint("student_small").model, "eager", "fp64", torch.device("cpu"))
    atoms = built(name, **options)
    found = find_minimum(atoms, engine, np.random.default_rng(0))
    assert not found.faults
    assert not changed_bonds(atoms, found.atoms)
    assert len(find_bonds(found.atoms)) == len(find_bonds(atoms))
