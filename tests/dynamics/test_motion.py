"""Where the kinetic energy is, by velocities that were drawn for the test."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from mlff_exp.dynamics.motion import motion_along
from mlff_exp.dynamics.recording import Trajectory
from mlff_exp.dynamics.state import FloatArray

N_FRAMES, N_STARTS = 400, 4


def trajectory(positions: FloatArray, velocities: FloatArray) -> Trajectory:
    ones = np.ones(positions.shape[:2])
    steps = np.arange(len(positions))
    times_ps: FloatArray = steps * np.float64(1e-3)
    return Trajectory(steps, times_ps, ones, ones, ones, ones, ones, ones, positions, velocities, None)


def equilibrium(atoms: Atoms, rng: np.random.Generator, n_starts: int = N_STARTS) -> Trajectory:
    """Velocities of a canonical ensemble at kT = 1 eV, without linear and angular momentum."""
    masses = atoms.get_masses()
    shape = (N_FRAMES, n_starts, len(atoms), 3)
    positions = atoms.positions + rng.normal(scale=0.03, size=shape)
    # An orthonormal basis of translations and, of a molecule, rotations in mass-weighted space is taken out.
    axes = np.broadcast_to(np.eye(3), (*shape[:2], 3, 3))
    rigid = np.broadcast_to(axes[:, :, :, None, :], (*shape[:2], 3, len(atoms), 3))
    if not atoms.pbc.any():
        turned = np.cross(axes[:, :, :, None, :], positions[:, :, None] - atoms.get_center_of_mass())
        rigid = np.concatenate([rigid, turned], axis=2)
    weighted = (rigid * np.sqrt(masses)[:, None]).reshape(*shape[:2], -1, 3 * len(atoms))
    basis = np.linalg.svd(weighted, full_matrices=False)[2]
    drawn = rng.normal(size=(*shape[:2], 3 * len(atoms)))
    drawn -= np.einsum("fsk,fskc->fsc", np.einsum("fskc,fsc->fsk", basis, drawn), basis)
    return trajectory(positions, drawn.reshape(shape) / np.sqrt(masses)[:, None])


@pytest.mark.parametrize("atoms", [molecule("C6H6"), bulk("NaCl", "rocksalt", a=5.64, cubic=True)], ids=str)
def test_in_equilibrium_every_group_has_its_share(atoms: Atoms) -> None:
    metrics = motion_along(equilibrium(atoms, np.random.default_rng(0)), 0, N_STARTS, atoms)
    ratios = {name: value for name, value in metrics.items() if name.startswith("equipartition_ratio/")}
    elements = {f"equipartition_ratio/element/{symbol}" for symbol in set(atoms.symbols)}
    assert set(ratios) == elements | ({"equipartition_ratio/stretch/XH"} if "H" in atoms.symbols else set())
    for name, value in ratios.items():
        low, high = (metrics[name.replace("/", f"_ci_{end}/", 1)] for end in ("low", "high"))
        assert low <= value <= high
        assert value == pytest.approx(1, abs=0.05)
    assert metrics["translation_percent_of_kinetic"] < 1e-20
    if atoms.pbc.any():
        assert "rotation_percent_of_kinetic" not in metrics
    else:
        assert metrics["rotation_percent_of_kinetic"] < 1e-20


def test_hot_hydrogen_among_cold_carbon_is_seen() -> None:
    atoms = molecule("C6H6")
    sound = equilibrium(atoms, np.random.default_rng(0))
    sound.velocities[:, :, atoms.numbers == 1] *= 1.2
    metrics = motion_along(sound, 0, N_STARTS, atoms)
    assert metrics["equipartition_ratio_ci_low/element/H"] > 1.1
    assert metrics["equipartition_ratio_ci_high/element/C"] < 0.9


def test_a_stretching_that_holds_no_energy_is_seen() -> None:
    """Bonds of hydrogen that are as good as rigid, with all else in equilibrium."""
    atoms = molecule("H2O")
    cold = equilibrium(atoms, np.random.default_rng(0))
    arms = cold.positions[:, :, 1:] - cold.positions[:, :, :1]
    arms /= np.linalg.norm(arms, axis=-1, keepdims=True)
    relative = ((cold.velocities[:, :, 1:] - cold.velocities[:, :, :1]) * arms).sum(axis=-1, keepdims=True)
    cold.velocities[:, :, 1:] -= relative * arms
    assert motion_along(cold, 0, N_STARTS, atoms)["equipartition_ratio_ci_high/stretch/XH"] < 0.2


def test_a_molecule_that_flies_and_one_that_spins_are_seen() -> None:
    atoms = molecule("C6H6")
    flies = equilibrium(atoms, np.random.default_rng(0))
    time = np.arange(N_FRAMES)[:, None, None, None]
    flies.velocities[:] = [0.0, 0.0, 0.1]
    flies.positions[:] = atoms.positions + time * [0.0, 0.0, 0.1]
    metrics = motion_along(flies, 0, N_STARTS, atoms)
    assert metrics["translation_percent_of_kinetic"] == pytest.approx(100)
    assert metrics["centre_of_mass_drift_ang"] == pytest.approx(0.1 * (N_FRAMES - 1))
    assert metrics["equipartition_ratio_ci_high/element/H"] < 0.5

    spins = equilibrium(atoms, np.random.default_rng(0))
    spins.velocities[:] = np.cross([0.0, 0.0, 0.1], spins.positions - atoms.get_center_of_mass())
    assert motion_along(spins, 0, N_STARTS, atoms)["rotation_percent_of_kinetic"] == pytest.approx(100, abs=0.1)


def test_a_linear_molecule_has_two_rotations_and_one_element_no_ratio() -> None:
    atoms = molecule("CO2")
    rng = np.random.default_rng(0)
    shape = (N_FRAMES, 1, 3, 3)
    still = trajectory(np.broadcast_to(atoms.positions, shape), 0 * rng.normal(size=shape))
    assert motion_along(still, 0, 1, atoms) == {}
    stretched = np.zeros(shape)
    stretched[..., 1, :] = atoms.positions[1] - atoms.positions[0]
    stretched[..., 2, :] = -stretched[..., 1, :]
    metrics = motion_along(trajectory(np.broadcast_to(atoms.positions, shape), stretched), 0, 1, atoms)
    assert metrics["rotation_percent_of_kinetic"] == pytest.approx(0, abs=1e-12)
    assert metrics["equipartition_ratio/element/C"] == 0
    assert "equipartition_ratio_ci_low/element/C" not in metrics
    nitrogen = molecule("N2")
    moving = trajectory(np.broadcast_to(nitrogen.positions, (20, 1, 2, 3)), np.ones((20, 1, 2, 3)))
    assert not any(name.startswith("equipartition") for name in motion_along(moving, 0, 1, nitrogen))


def test_frames_that_are_no_numbers_are_left_out() -> None:
    atoms = molecule("H2O")
    broken = equilibrium(atoms, np.random.default_rng(0))
    broken.positions[-1], broken.velocities[-1] = np.nan, np.nan
    assert all(np.isfinite(value) for value in motion_along(broken, 0, N_STARTS, atoms).values())
    broken.positions[:] = np.nan
    assert motion_along(broken, 0, N_STARTS, atoms) == {}
