"""Velocities at the start: exactly the temperature, and no motion that is not internal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from scipy.spatial.transform import Rotation

from mlff_exp.dynamics.start import _draw_velocities
from mlff_exp.dynamics.verlet import Dynamics
from mlff_exp.engines.factory import make_engine
from mlff_exp.models.painn import PaiNN
from mlff_exp.structures.systems import water_box

CPU = torch.device("cpu")
T_K = 300.0


def drawn(model: PaiNN, systems: list[Atoms], seed: int = 0) -> list[Atoms]:
    """The systems with velocities."""
    dynamics = Dynamics(make_engine(model, "eager", "fp64", CPU), systems, timestep_fs=0.5)
    velocities = _draw_velocities(dynamics, dynamics.batch.positions, T_K, np.random.default_rng(seed))
    moving = []
    for atoms, padded in zip(systems, dynamics.batch.per_system(velocities).numpy(), strict=True):
        assert not padded[len(atoms) :].any()
        moving.append(Atoms(atoms.numbers, atoms.positions, masses=atoms.get_masses(), cell=atoms.cell, pbc=atoms.pbc))
        moving[-1].set_velocities(padded[: len(atoms)])
    return moving


def turned(name: str, seed: int) -> Atoms:
    atoms = molecule(name)
    atoms.positions = atoms.positions @ Rotation.random(random_state=seed).as_matrix().T
    return atoms


@pytest.mark.parametrize(("name", "dof"), [("H2O", 3), ("C6H6", 30), ("CO2", 4), ("H2", 1)])
def test_molecules_neither_drift_nor_turn(random_model: PaiNN, name: str, dof: int) -> None:
    """Linear molecules as well, along an axis of the coordinates or not."""
    heavy = turned(name, 3)
    heavy.set_masses([2.014 if symbol == "H" else 13.5 for symbol in heavy.symbols])
    for atoms in drawn(random_model, [molecule(name), turned(name, 1), turned(name, 2), heavy]):
        assert atoms.get_kinetic_energy() == pytest.approx(0.5 * dof * units.kB * T_K, rel=1e-12)
        size = np.abs(atoms.get_momenta()).max()
        assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-12 * size
        assert np.abs(atoms.get_angular_momentum()).max() < 1e-12 * size
        assert size < 100


def test_a_cell_does_not_drift_and_keeps_its_angular_momentum(random_model: PaiNN) -> None:
    (atoms,) = drawn(random_model, [water_box(8)])
    assert atoms.get_kinetic_energy() == pytest.approx(0.5 * (3 * 24 - 3) * units.kB * T_K, rel=1e-12)
    assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-12
    assert np.linalg.norm(atoms.get_angular_momentum()) > 1


def test_velocities_are_those_of_the_seed_and_follow_the_masses(random_model: PaiNN) -> None:
    """Without drift an atom of mass m has 3/2 kT (1 − m/M) on average, M being the mass of the cell."""
    cell = molecule("CH3OH", cell=[12.0] * 3, pbc=True)
    first, same, other = (drawn(random_model, [cell] * 300, seed) for seed in (0, 0, 1))
    assert np.array_equal(first[0].get_velocities(), same[0].get_velocities())
    assert not np.allclose(first[0].get_velocities(), other[0].get_velocities())
    masses = cell.get_masses()
    energies = np.mean([0.5 * masses * np.square(a.get_velocities()).sum(axis=1) for a in first + other], axis=0)
    expected = 1.5 * units.kB * T_K * (1 - masses / masses.sum())
    np.testing.assert_allclose(energies, expected, rtol=0.12)
