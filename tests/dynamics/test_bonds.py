"""Bonds of a structure, whole or wrapped, and what becomes of them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from mlff_exp.dynamics.bonds import changed_bonds, find_bonds
from mlff_exp.dynamics.verlet import Dynamics
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.models.painn import PaiNN
from tests.conftest import rattled


def in_a_box(first_x: float) -> Atoms:
    """Water of which the oxygen is so far along x; positions are wrapped into a box of 12 Å."""
    water = molecule("H2O", cell=[12, 12, 12], pbc=True)
    water.positions += np.array([first_x, 6, 6]) - water.positions[0]
    water.rotate(40, "y", center=water.positions[0])
    water.wrap()
    return water


def test_bonds_reach_across_the_boundary() -> None:
    whole, wrapped = find_bonds(in_a_box(6.0)), find_bonds(in_a_box(0.05))
    assert len(whole) == len(wrapped) == 2
    assert [(i, j) for i, j in zip(wrapped.first, wrapped.second, strict=True)] == [(0, 1), (0, 2)]
    np.testing.assert_allclose(wrapped.lengths, whole.lengths, atol=1e-12)
    assert not whole.images.any()
    assert wrapped.images.any()


@pytest.mark.parametrize("name", ["C6H6", "CH3CH2OH", "CO2"])
def test_bonds_of_a_molecule_are_all_pairs_that_are_near(name: str) -> None:
    atoms = molecule(name)
    found = find_bonds(atoms)
    assert len(found) == {"C6H6": 12, "CH3CH2OH": 8, "CO2": 2}[name]
    pairs = zip(found.first, found.second, strict=True)
    np.testing.assert_allclose(found.lengths, [atoms.get_distance(*pair) for pair in pairs])
    assert len(find_bonds(Atoms("Ar2", [[0, 0, 0], [4, 0, 0]]))) == 0


def test_what_broke_and_what_formed_is_named() -> None:
    before = molecule("H2O")
    after = before.copy()
    after.positions[1] += [0, 3, 0]
    (broke,) = changed_bonds(before, after)
    assert broke.startswith("O0–H1 broke (0.97 to 3.")
    (formed,) = changed_bonds(after, before)
    assert formed.startswith("O0–H1 formed (3.")
    stretched = before.copy()
    stretched.set_distance(0, 1, 1.28, fix=0)
    assert changed_bonds(before, stretched), "a bond of 1.28 Å is none, and this is far from where it was"
    stretched.set_distance(0, 1, 1.25, fix=0)
    further = before.copy()
    further.set_distance(0, 1, 1.27, fix=0)
    assert not changed_bonds(stretched, further), "at the limit"


def test_dynamics_see_the_same_of_a_molecule_whole_and_wrapped(student: PaiNN) -> None:
    engine = EagerEngine(copy.deepcopy(student).cast(torch.float64), "fp64", torch.device("cpu"))
    seen = []
    for atoms in (in_a_box(6.0), in_a_box(0.05)):
        dynamics = Dynamics(engine, [atoms], timestep_fs=0.5)
        generator = torch.Generator().manual_seed(0)
        velocities = 0.05 * torch.randn(dynamics.batch.positions.shape, generator=generator, dtype=torch.float64)
        velocities[3:] = 0
        seen.append(dynamics.run(dynamics.state(dynamics.batch.positions, velocities), 40, 2))
    whole, wrapped = seen
    assert whole.bond_change.max() > 0.02
    for column in ("bond_change", "displacement", "momentum", "kinetic", "potential"):
        np.testing.assert_allclose(getattr(wrapped, column), getattr(whole, column), atol=1e-8, err_msg=column)


def test_what_has_no_bonds_says_so(student: PaiNN) -> None:
    engine = EagerEngine(copy.deepcopy(student).cast(torch.float64), "fp64", torch.device("cpu"))
    apart = Atoms("OO", [[0, 0, 0], [0, 0, 4.5]])
    dynamics = Dynamics(engine, [rattled("H2O", 1), apart], timestep_fs=0.5)
    assert [dynamics.has_bonds(index) for index in range(2)] == [True, False]
