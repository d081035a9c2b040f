"""The integrator, the preparation of its start, and the detection of explosions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import neighbor_list
from ase.optimize import LBFGS

from mlff_exp.calculator import StudentForceFieldCalculator
from mlff_exp.dynamics.start import prepare_start
from mlff_exp.dynamics.state import MDState
from mlff_exp.dynamics.verlet import SKIN_ANG, Dynamics
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.engines.factory import make_engine
from mlff_exp.engines.prediction import Prediction
from mlff_exp.engines.protocol import Engine
from mlff_exp.engines.registry import engine_options
from mlff_exp.measure.correctness import require_correct
from mlff_exp.measure.physics import internal_degrees_of_freedom
from mlff_exp.models.checkpoint import load_checkpoint
from mlff_exp.models.graph import GraphModel
from mlff_exp.models.painn import PaiNN, pair_vectors
from mlff_exp.structures.batch import AtomicBatch, collate
from mlff_exp.structures.systems import water_box
from tests.helpers.engines import AUTOTUNED, GPU_ENGINES
from tests.helpers.networks import TwoRanges
from tests.helpers.shapes import assert_state

CPU = torch.device("cpu")


@pytest.fixture
def engine(student_small: PaiNN) -> Engine:
    return make_engine(student_small, "eager", "fp64", CPU)


def moving(dynamics: Dynamics, seed: int = 0) -> MDState:
    generator = torch.Generator().manual_seed(seed)
    velocities = 0.02 * torch.randn(dynamics.batch.positions.shape, generator=generator, dtype=torch.float64)
    state = dynamics.state(dynamics.batch.positions, velocities.to(dynamics.batch.positions.device))
    assert_state(state, dynamics.batch)
    return state


def test_same_trajectory_as_ase(engine: Engine) -> None:
    atoms = molecule("CH3OH")
    dynamics = Dynamics(engine, [atoms.copy()], timestep_fs=0.5)
    state = moving(dynamics)
    atoms.set_velocities(state.velocities.numpy())
    atoms.calc = StudentForceFieldCalculator("student_small", device="cpu", engine="eager", precision="fp64")
    VelocityVerlet(atoms, timestep=0.5 * units.fs).run(40)
    trajectory = dynamics.run(state, 40, record_every=10)
    np.testing.assert_allclose(state.positions.numpy(), atoms.positions, atol=1e-9)
    assert trajectory.steps.tolist() == [0, 10, 20, 30, 40]
    assert trajectory.times_ps[-1] == pytest.approx(0.02)
    assert trajectory.potential[-1, 0] == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    assert trajectory.kinetic[-1, 0] == pytest.approx(atoms.get_kinetic_energy(), abs=1e-8)


def test_records_say_of_each_system_what_its_atoms_do(engine: Engine) -> None:
    """The smaller of two has padding, which rests."""
    systems = [molecule("CH3OH"), molecule("H2O")]
    dynamics = Dynamics(engine, systems, timestep_fs=0.5)
    state = moving(dynamics)
    state.velocities *= dynamics.batch.is_atom.unsqueeze(-1)
    trajectory = dynamics.run(state, 20, record_every=10)
    assert_state(state, dynamics.batch)
    positions, velocities = (dynamics.batch.per_system(part).numpy() for part in (state.positions, state.velocities))
    for index, start in enumerate(systems):
        atoms = start.copy()
        atoms.positions = positions[index, : len(atoms)]
        atoms.set_velocities(velocities[index, : len(atoms)])
        moved = np.linalg.norm(atoms.positions - start.positions, axis=1).max()
        bonds = [(i, j) for i, j in itertools.combinations(range(len(atoms)), 2) if start.get_distance(i, j) < 1.5]
        bonds = [pair for pair in bonds if set(start.symbols[list(pair)]) != {"H"}]
        change = max(abs(atoms.get_distance(*pair) - start.get_distance(*pair)) for pair in bonds)
        momenta = atoms.get_momenta()
        left_over = np.linalg.norm(momenta.sum(axis=0)) / np.linalg.norm(momenta, axis=1).sum()
        last = {
            name: getattr(trajectory, name)[-1, index]
            for name in ("displacement", "bond_change", "momentum", "kinetic")
        }
        said = {
            "displacement": moved,
            "bond_change": change,
            "momentum": left_over,
            "kinetic": atoms.get_kinetic_energy(),
        }
        assert last == pytest.approx(said, rel=1e-9)
    assert (trajectory.displacement[0] == 0).all()


@pytest.mark.gpu
def test_captured_steps_are_the_steps_of_the_eager_engine(student: PaiNN) -> None:
    """Several blocks of frames; in FP64, so that 4,010 steps of rounding stay small."""
    systems = [molecule("CH3OH"), molecule("CH3OH")]
    trajectories = []
    for name in ("eager", "cuda_graph"):
        dynamics = Dynamics(make_engine(student, name, "fp64", torch.device("cuda")), systems, timestep_fs=0.1)
        state = dynamics.state(dynamics.batch.positions, torch.zeros_like(dynamics.batch.positions))
        trajectories.append(dynamics.run(state, 4010, record_every=10))
        assert state.step == 4010
    eager, captured = trajectories
    assert captured.steps.tolist() == eager.steps.tolist()
    assert len(captured.positions) == 402
    assert np.abs(captured.positions[-1] - captured.positions[0]).max() > 0.01
    np.testing.assert_allclose(captured.positions, eager.positions, atol=1e-7)
    np.testing.assert_allclose(captured.potential, eager.potential, atol=1e-7)
    np.testing.assert_allclose(captured.kinetic, eager.kinetic, atol=1e-7)


@pytest.mark.gpu
def test_a_captured_run_stops_when_it_blows_up(student: PaiNN) -> None:
    dynamics = Dynamics(make_engine(student, "cuda_graph", "fp32", torch.device("cuda")), [molecule("H2O")], 5.0)
    velocities = torch.randn(dynamics.batch.positions.shape, dtype=torch.float64, device="cuda")
    trajectory = dynamics.run(dynamics.state(dynamics.batch.positions, velocities), 100_000, 10)
    assert trajectory.blow_up is not None
    assert trajectory.steps[-1] < 100_000


def test_time_reversal(engine: Engine) -> None:
    dynamics = Dynamics(engine, [molecule("H2O")], timestep_fs=0.5)
    state = moving(dynamics)
    start = state.positions.clone()
    dynamics.run(state, 50, 10)
    state.velocities = -state.velocities
    dynamics.run(state, 50, 10)
    assert (state.positions - start).abs().max() < 1e-9


def test_energy_fluctuation_shrinks_with_the_square_of_the_timestep(engine: Engine) -> None:
    fluctuation = []
    for timestep_fs, n_steps in ((0.5, 100), (0.25, 200)):
        dynamics = Dynamics(engine, [molecule("H2O")], timestep_fs)
        trajectory = dynamics.run(moving(dynamics), n_steps, 1)
        fluctuation.append(float((trajectory.potential + trajectory.kinetic).std()))
    assert 3 < fluctuation[0] / fluctuation[1] < 5


def test_replicas_do_not_feel_each_other(engine: Engine) -> None:
    both = Dynamics(engine, [molecule("NH3"), molecule("NH3")], 0.5)
    state = moving(both)
    alone = Dynamics(engine, [molecule("NH3")], 0.5)
    second = alone.state(alone.batch.positions, state.velocities[4:].clone())
    both.run(state, 20, 10)
    alone.run(second, 20, 10)
    np.testing.assert_allclose(state.positions[4:].numpy(), second.positions.numpy(), atol=1e-10)


def test_the_start_reaches_its_temperature_without_drifting_or_spinning(engine: Engine) -> None:
    """Of three molecules at once; all but the largest have padding."""
    relaxed = []
    for name, dof in {"H2O": 3, "CO2": 4, "C6H6": 30}.items():
        atoms = molecule(name)
        atoms.calc = StudentForceFieldCalculator("student_small", device="cpu", engine="eager", precision="fp64")
        LBFGS(atoms, logfile=None).run(fmax=0.01, steps=200)
        assert internal_degrees_of_freedom(atoms.positions, atoms.pbc) == dof
        relaxed.append(atoms.copy())
    dynamics = Dynamics(engine, relaxed, timestep_fs=1.0)
    state = prepare_start(dynamics, 300.0, settle_ps=0.1, probe_ps=0.25, rng=np.random.default_rng(1))
    trajectory = dynamics.run(state, 250, 2)
    assert trajectory.temperature.mean(axis=0) == pytest.approx([300] * 3, abs=60)
    assert trajectory.momentum.max() < 1e-10
    for one, padded_positions, padded_velocities in zip(
        dynamics.systems,
        dynamics.batch.per_system(state.positions).numpy(),
        dynamics.batch.per_system(state.velocities).numpy(),
        strict=True,
    ):
        masses = one.get_masses()[:, None]
        positions, velocities = padded_positions[: len(one)], padded_velocities[: len(one)]
        arms = positions - (masses * positions).sum(axis=0) / masses.sum()
        angular = np.cross(arms, masses * velocities).sum(axis=0)
        assert np.abs(angular).max() < 1e-3 * (masses * np.linalg.norm(arms, axis=1)[:, None] * velocities).std()


def test_a_single_atom_is_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="no internal degrees of freedom"):
        Dynamics(engine, [Atoms("H")], 0.5)


def test_systems_of_different_sizes_move_as_they_do_alone(engine: Engine) -> None:
    systems = [molecule("H2O"), molecule("CH4"), molecule("CO2")]
    together = Dynamics(engine, systems, 0.5)
    state = moving(together)
    # Padding is at rest.
    state.velocities *= together.batch.is_atom.unsqueeze(-1)
    rows = together.batch.per_system(state.velocities).clone()
    trajectory = together.run(state, 20, 5)
    for index, atoms in enumerate(systems):
        alone = Dynamics(engine, [atoms], 0.5)
        single = alone.run(alone.state(alone.batch.positions, rows[index, : len(atoms)]), 20, 5)
        for column in ("potential", "kinetic", "temperature", "displacement", "bond_change", "momentum"):
            ours, theirs = getattr(trajectory, column)[:, index], getattr(single, column)[:, 0]
            np.testing.assert_allclose(ours, theirs, atol=1e-9, err_msg=column)
        np.testing.assert_allclose(trajectory.positions[:, index, : len(atoms)], single.positions[:, 0], atol=1e-9)
        assert (trajectory.positions[:, index, len(atoms) :] == 0).all()


class Scripted(EagerEngine):
    """The student, until something happens to its forces."""

    def __init__(self, model: PaiNN, after: int, factor: float) -> None:
        super().__init__(model, "fp32", CPU)
        self.calls, self.after, self.factor = 0, after, factor

    def __call__(self, batch: AtomicBatch) -> Prediction:
        self.calls += 1
        prediction = super().__call__(batch)
        if self.calls <= self.after:
            return prediction
        forces = prediction.forces.clone()
        forces[4] += self.factor
        return Prediction(prediction.energy, forces)


def test_a_broken_bond_stops_the_run_and_names_the_atoms(student: PaiNN) -> None:
    dynamics = Dynamics(Scripted(student, after=30, factor=200.0), [molecule("H2O"), molecule("H2O")], 0.5)
    trajectory = dynamics.run(moving(dynamics), 2000, 5)
    assert trajectory.blow_up is not None
    assert trajectory.blow_up.startswith("replica 1 broke apart at step ")
    assert "the bond of atoms 0 and 1" in trajectory.blow_up
    assert trajectory.steps[-1] < 2000
    assert len(trajectory.steps) == len(trajectory.potential)


def test_nan_stops_the_run_and_names_the_atoms(student: PaiNN) -> None:
    dynamics = Dynamics(Scripted(student, after=30, factor=float("nan")), [molecule("H2O"), molecule("H2O")], 0.5)
    trajectory = dynamics.run(moving(dynamics), 2000, 5)
    assert trajectory.blow_up is not None
    assert "replica 1 became NaN or infinite at step 30" in trajectory.blow_up


class Watched:
    """An engine that keeps every batch it is given."""

    def __init__(self, engine: Engine) -> None:
        self.inner = engine
        self.seen: list[AtomicBatch] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, batch: AtomicBatch) -> Prediction:
        self.seen.append(batch.with_tensors(*(tensor.clone() for tensor in batch.tensors())))
        return self.inner(batch)


def moved(batch: AtomicBatch, by: float) -> AtomicBatch:
    generator = torch.Generator().manual_seed(0)
    moves = torch.randn(batch.positions.shape, generator=generator, dtype=torch.float64)
    return batch.with_positions(batch.positions + by * moves.to(batch.positions.device))


def pairs_within(batch: AtomicBatch, cutoff: float) -> int:
    lengths = pair_vectors(batch, cutoff).square().sum(dim=-1).sqrt()
    return int((lengths[batch.mask] < cutoff).sum())


@pytest.mark.parametrize("record_every", [5, 25])
def test_no_pair_is_lost_in_hot_dynamics_of_a_periodic_system(record_every: int) -> None:
    box, engine = water_box(8), make_engine(load_checkpoint("student_small").model, "eager", "fp64", CPU)
    watched = Watched(engine)
    dynamics = Dynamics(watched, [box], timestep_fs=0.5)
    generator = torch.Generator().manual_seed(0)
    hot = torch.randn(dynamics.batch.positions.shape, generator=generator, dtype=torch.float64)
    hot *= (units.kB * 1000 / dynamics.masses).sqrt()
    state = dynamics.state(dynamics.batch.positions, hot + torch.tensor([0.6, 0.0, 0.0], dtype=torch.float64))
    watched.seen.clear()
    trajectory = dynamics.run(state, 50, record_every)
    assert trajectory.blow_up is None
    assert state.step == trajectory.steps[-1] == 50
    assert (dynamics._list_positions.cpu() - dynamics._start).abs().max() > SKIN_ANG / 2, "never listed anew"
    total = trajectory.potential + trajectory.kinetic
    # An interval whose list became stale is computed again; the last evaluation of each frame counts.
    frames = {frame.positions.numpy().tobytes(): frame for frame in watched.seen}
    looked_at = 0
    for positions, energy in zip(trajectory.positions[1:, 0], trajectory.potential[1:, 0], strict=True):
        box.positions = positions
        frame = frames[positions.tobytes()]
        assert pairs_within(frame, engine.cutoff) == len(neighbor_list("i", box, engine.cutoff))
        expected = engine(collate([box], engine.cutoff)).energy
        assert energy == pytest.approx(float(expected), abs=1e-9)
        looked_at += 1
    assert looked_at == 50 // record_every
    assert np.abs(total - total[0]).max() < 0.3


def test_a_model_with_two_cutoffs_moves_on_two_lists() -> None:
    """Atoms gather, so that the list and its part for the shorter cutoff are found anew and grow."""
    box, engine = water_box(8), EagerEngine(GraphModel(TwoRanges()).double(), "fp64", CPU)
    wide = box.copy()
    wide.set_cell(box.cell * 2, scale_atoms=True)
    watched = Watched(engine)
    dynamics = Dynamics(watched, [wide], timestep_fs=0.5)
    ((cutoff, few),) = dynamics.batch.near_columns
    assert cutoff == 2.5
    assert few < dynamics.batch.neighbors.shape[1]
    together = torch.from_numpy(box.positions)
    state = dynamics.state(together, torch.full_like(together, 0.6))
    many = dynamics.batch.near_columns[0][1]
    assert many > few
    for _ in range(30):
        dynamics.step(state)
    assert dynamics.batch.near_columns[0][1] >= many
    assert watched.seen[-1].near_columns == dynamics.batch.near_columns
    wide.positions = state.positions.numpy()
    expected = engine(collate([wide], engine.cutoff))
    assert float(state.energy) == pytest.approx(float(expected.energy), abs=1e-10)
    np.testing.assert_allclose(state.forces.numpy(), expected.forces.numpy(), rtol=0, atol=1e-11)


@pytest.mark.gpu
@pytest.mark.usefixtures("few_autotuning_choices")
@pytest.mark.parametrize(
    ("name", "mode", "n_molecules"),
    [
        pytest.param(
            *engine,
            n_molecules,
            # The largest need a good part of a GPU's memory: one after the other.
            marks=[pytest.mark.xdist_group("large")] if n_molecules == 1728 else [],
        )
        for engine, n_molecules in itertools.product(GPU_ENGINES, (64, 512, 1728))
        if engine not in AUTOTUNED or n_molecules == 64
    ],
)
def test_water_boxes_on_the_gpu(student: PaiNN, name: str, mode: str, n_molecules: int) -> None:
    """From the first step on a box of water drifts, so that its neighbours are listed anew several times."""
    box, cuda = water_box(n_molecules), torch.device("cuda")
    dynamics = Dynamics(
        make_engine(student, name, "fp32", cuda, engine_options(name, mode=mode)), [box], timestep_fs=0.5
    )
    require_correct(dynamics.engine, make_engine(student, "eager", "fp64", cuda), moved(dynamics.batch, 0.05), "fp32")
    state = moving(dynamics)
    state.velocities += torch.tensor([0.6, 0.0, 0.0], dtype=torch.float64, device=cuda)
    trajectory = dynamics.run(state, 60, 10)
    assert trajectory.blow_up is None
    assert (dynamics._list_positions.cpu() - dynamics._start).abs().max() > SKIN_ANG / 2, "never listed anew"
    box.positions = trajectory.positions[-1, 0]
    exact = make_engine(student, "eager", "fp64", cuda)(collate([box], dynamics.engine.cutoff, device=cuda))
    assert trajectory.potential[-1, 0] == pytest.approx(float(exact.energy), abs=1e-5 * len(box))


def test_more_neighbors_than_there_is_room_for(engine: Engine) -> None:
    """Atoms that come together need more columns."""
    box = water_box(8)
    wide = box.copy()
    wide.set_cell(box.cell * 2.5, scale_atoms=True)
    dynamics = Dynamics(engine, [wide], timestep_fs=0.5)
    few = dynamics.batch.neighbors.shape[1]
    together = torch.from_numpy(box.positions)
    state = dynamics.state(together, torch.zeros_like(together))
    assert dynamics.batch.neighbors.shape[1] > few
    gathered = wide.copy()
    gathered.positions = box.positions
    assert float(state.energy) == pytest.approx(float(engine(collate([gathered], engine.cutoff)).energy), abs=1e-9)
