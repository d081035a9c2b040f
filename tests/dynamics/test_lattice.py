"""Which systems have a lattice to be judged by, and how far their atoms are from it."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT

from mlff_exp.config.systems import CRYSTALS, Crystal, WaterBox
from mlff_exp.dynamics.lattice import is_lattice, lindemann_ratio, nearest_neighbour_ang
from mlff_exp.dynamics.verlet import Dynamics
from mlff_exp.engines.ase import AseEngine
from mlff_exp.structures.systems import build_systems

NEAREST = {"copper": 3.615 / np.sqrt(2), "nacl": 2.82, "silicon": 5.431 * np.sqrt(3) / 4, "ice": 0.98}


def built(name: str) -> Atoms:
    (atoms,) = build_systems(Crystal(name)).values()
    return atoms


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (bulk("Ar", cubic=True), True),
        (fcc111("Cu", (2, 2, 2), vacuum=5, periodic=False), True),  # periodic in two directions
        (bulk("MgO", "rocksalt", a=4.21), True),
        (bulk("SiC", "zincblende", a=4.36, cubic=True), False),
        (molecule("NaCl"), False),  # may rotate
        (molecule("C6H6"), False),
        (*build_systems(WaterBox(n_molecules=8)).values(), False),
    ],
    ids=str,
)
def test_a_system_has_bonds_or_a_lattice(atoms: Atoms, expected: bool) -> None:
    assert is_lattice(atoms) == expected


@pytest.mark.parametrize("name", CRYSTALS)
def test_named_crystals_have_bonds_or_a_lattice(name: str) -> None:
    atoms = built(name)
    assert is_lattice(atoms) == (name in {"copper", "nacl"})
    assert nearest_neighbour_ang(atoms) == pytest.approx(NEAREST[name], abs=1e-3)


def test_the_nearest_neighbour_may_be_an_image() -> None:
    assert nearest_neighbour_ang(bulk("Ar", "fcc", a=5.26)) == pytest.approx(5.26 / np.sqrt(2))


def test_the_ratio_is_that_of_the_displacements_and_not_of_a_drift() -> None:
    copper, rng = built("copper"), np.random.default_rng(0)
    away = rng.normal(scale=0.1, size=(50, len(copper), 3))
    ratio = lindemann_ratio(copper, copper.positions + away + np.array([0.7, 0.0, -3.0]))
    assert ratio.shape == (50,)
    np.testing.assert_allclose(ratio.mean(), 0.1 * np.sqrt(3) / NEAREST["copper"], rtol=0.05)
    assert lindemann_ratio(copper, copper.positions[None] + 5.0)[0] == pytest.approx(0, abs=1e-12)


def test_one_atom_of_32_that_takes_the_place_of_another_exceeds_the_limit() -> None:
    copper = built("copper")
    positions = copper.positions.copy()
    positions[0] += [NEAREST["copper"], 0, 0]
    assert lindemann_ratio(copper, positions[None])[0] > 0.15


def test_atoms_of_a_metal_have_no_bonds_and_three_degrees_of_freedom_less_for_the_crystal() -> None:
    copper = built("copper")
    dynamics = Dynamics(AseEngine(EMT()), [copper, copper.copy()], timestep_fs=2.0)
    assert [dynamics.has_bonds(index) for index in (0, 1)] == [False, False]
    assert dynamics.dof.tolist() == [3 * 32 - 3] * 2
