"""The fused engine against eager FP64: in Triton's interpreter on a CPU, and for real where there is a GPU."""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from ase import Atoms
from ase.build import molecule

from benchmarks import fused_shapes
from benchmarks.fused_shapes import parse_shape
from mlff_exp.config.words import Precision
from mlff_exp.dynamics.verlet import Dynamics
from mlff_exp.engines.cuda_graph import CudaGraphEngine
from mlff_exp.engines.factory import make_engine
from mlff_exp.engines.fused.engine import FusedEngine
from mlff_exp.engines.fused.kernels import _add_4
from mlff_exp.engines.fused.shapes import Shape, StagedShape, shape_for
from mlff_exp.engines.prediction import EngineError
from mlff_exp.engines.protocol import Engine
from mlff_exp.engines.registry import ENGINES
from mlff_exp.measure.correctness import require_correct
from mlff_exp.models.checkpoint import load_checkpoint
from mlff_exp.models.painn import PaiNN
from mlff_exp.structures.batch import AtomicBatch, collate
from mlff_exp.structures.systems import unseen_molecule
from tests.conftest import cluster, make_random_model, rattled
from tests.helpers.fused_shapes import JOINED, MOLECULES, SHARED, SPLIT, WIDE
from tests.helpers.shapes import assert_prediction

pytest.importorskip("triton", reason="Triton is not installed")

from tests.helpers import interpreter

ON_GPU = torch.cuda.is_available()
if not ON_GPU:
    interpreter.quicken()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
CUTOFF = 5.0
ROOT = Path(__file__).resolve().parent.parent.parent


def on_device(atoms: list[Atoms], **options: int) -> AtomicBatch:
    return collate(atoms, CUTOFF, device=DEVICE, **options)  # type: ignore[arg-type]


def reference(model: PaiNN) -> Engine:
    return make_engine(model, "eager", "fp64", DEVICE)


def fused_engine(model: PaiNN, precision: Precision) -> FusedEngine:
    return FusedEngine(model.to(DEVICE), precision, DEVICE)


@pytest.fixture
def small() -> PaiNN:
    """Two interactions, 16 features (padded to 32), 8 radial functions; random weights."""
    return make_random_model().cast(torch.float32).to(DEVICE)


@triton.jit
def _sums(tiles, sums, axis: tl.constexpr):
    """[4, 2, 4, 8] without the axis."""
    places = tl.arange(0, 2)[:, None, None] * 32 + tl.arange(0, 4)[None, :, None] * 8 + tl.arange(0, 8)[None, None, :]
    a, b = tl.load(tiles + places), tl.load(tiles + 64 + places)
    c, d = tl.load(tiles + 128 + places), tl.load(tiles + 192 + places)
    a, b, c, d = tl.reduce((a, b, c, d), axis, _add_4)
    left: tl.constexpr = a.shape[1]
    places = tl.arange(0, a.shape[0])[:, None] * left + tl.arange(0, left)[None, :]
    size: tl.constexpr = a.numel
    tl.store(sums + places, a)
    tl.store(sums + size + places, b)
    tl.store(sums + 2 * size + places, c)
    tl.store(sums + 3 * size + places, d)


@pytest.mark.skipif(ON_GPU, reason="nothing is interpreted")
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_interpreter_is_made_quicker_and_nothing_else(monkeypatch: pytest.MonkeyPatch, axis: int) -> None:
    tiles = torch.randn(4, 2, 4, 8, generator=torch.Generator().manual_seed(axis))
    found, expected = (tiles.sum(axis + 1) * torch.nan for _ in range(2))
    _sums[1,](tiles, found, axis=axis)
    torch.testing.assert_close(found, tiles.sum(axis + 1))
    monkeypatch.setattr(triton.runtime.interpreter.ReduceOps, "generic_reduce", interpreter.AS_IT_COMES)
    _sums[1,](tiles, expected, axis=axis)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("shape", "precision"),
    [
        pytest.param(WIDE, "fp32", id="wide-fp32"),
        pytest.param(WIDE, "tf32", id="wide-tf32"),
        pytest.param(SPLIT, "fp16_autocast", id="split-fp16"),
        pytest.param(JOINED, "tf32", id="joined-tf32"),
        pytest.param(SHARED, "fp16_autocast", id="shared-fp16"),
        pytest.param(MOLECULES, "fp16_autocast", id="molecules-fp16"),
    ],
)
def test_energies_and_forces_are_those_of_eager_fp64(small: PaiNN, shape: Shape, precision: Precision) -> None:
    """Differences of the energy as well; the padding of the smaller molecules feels nothing."""
    # Differences of the energy, in FP32 alone, take four evaluations more; one molecule says as much of them.
    molecules = [rattled("CH3OH", 1), rattled("H2O", 2)]
    batch = on_device(molecules[:1] if precision == "fp32" else molecules)
    require_correct(FusedEngine(small, precision, DEVICE, shape), reference(small), batch, precision)


@pytest.mark.parametrize("name", ["student", "student_small"])
def test_shipped_weights(name: str) -> None:
    """With all features at once, which takes the interpreter a seventh of the time."""
    model = load_checkpoint(name).model.to(DEVICE)
    assert isinstance(model, PaiNN)
    batch = on_device([rattled("H2O", 3)])
    columns = model.architecture.n_features
    shape = dataclasses.replace(WIDE, columns=columns, pair_columns=columns) if not ON_GPU else None
    prediction, expected = FusedEngine(model, "fp32", DEVICE, shape)(batch), reference(model)(batch)
    assert_prediction(prediction, batch)
    assert float((prediction.energy - expected.energy).abs()) < 1e-5
    assert float((prediction.forces - expected.forces).abs().max()) < 1e-5


def test_more_atoms_take_more_slots(small: PaiNN) -> None:
    batch = on_device([cluster(19, 1)])
    require_correct(fused_engine(small, "tf32"), reference(small), batch, "tf32")


def test_padding_and_other_molecules_do_not_change_the_bits(small: PaiNN) -> None:
    engine = FusedEngine(small, "fp32", DEVICE, WIDE)
    batch = on_device([rattled("H2O", 1), rattled("NH3", 2)])
    first = engine(batch)
    energy, forces = first.energy.clone(), first.forces.clone()
    moved = batch.positions.clone()
    moved[~batch.is_atom] += 0.7
    moved[4:] += 0.3  # the second molecule moves as a whole
    again = engine(batch.with_positions(moved))
    assert torch.equal(first.forces, forces), "a later call overwrote an earlier prediction"
    assert torch.equal(again.energy[0], energy[0])
    assert torch.equal(again.forces[:4], forces[:4])
    assert torch.equal(engine(batch).forces, forces)
    assert bool((forces[~batch.is_atom] == 0).all())


@pytest.mark.parametrize("shape", [WIDE, SHARED])
def test_a_molecule_that_is_lost_takes_no_other_along(small: PaiNN, shape: Shape) -> None:
    batch = on_device([rattled("H2O", 1), rattled("H2O", 2)])
    positions = batch.positions.clone()
    positions[0] = torch.nan
    lost = FusedEngine(small, "tf32", DEVICE, shape)(batch.with_positions(positions))
    assert lost.energy.isfinite().tolist() == [False, True]
    assert bool(batch.per_system(lost.forces)[1].isfinite().all())


def test_atoms_far_apart_do_not_feel_each_other(small: PaiNN) -> None:
    engine = FusedEngine(small, "fp32", DEVICE, WIDE)
    pair = Atoms("OH", positions=[[0, 0, 0], [0, 0, 5.0001]])
    prediction = engine(on_device([pair]))
    assert not prediction.forces.any()
    alone = engine(on_device([Atoms("O"), Atoms("H")]))
    assert float(prediction.energy) == pytest.approx(float(alone.energy.sum()), abs=1e-6)


@pytest.mark.slow
def test_kernels_compile_for_a_gpu() -> None:
    cases = {"wide:fp32": 20, "shared:fp16_autocast": 23, "molecules:fp16_autocast": 1}
    finished = subprocess.run(
        [sys.executable, "-m", "tests.helpers.offline", *cases],
        cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "0"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert Counter(line.split()[0] for line in finished.stdout.splitlines()) == cases


def test_unsupported_systems_are_refused(small: PaiNN) -> None:
    with pytest.raises(EngineError, match="has no precision 'bf16_autocast': use one of fp32, tf32, fp16_autocast"):
        fused_engine(small, "bf16_autocast")
    with pytest.raises(EngineError, match="up to 64 atoms; the largest of this batch has 65"):
        shape_for(1, 65, 128, "fp32", DEVICE)
    box = molecule("H2O")
    box.cell, box.pbc = [4, 4, 4], True
    with pytest.raises(EngineError, match="a shape of 16 slots can't hold 17 atoms"):
        FusedEngine(small, "fp32", DEVICE, WIDE)(on_device([Atoms("H17", np.zeros((17, 3)))]))
    with pytest.raises(EngineError, match="a shape of 16 slots can't hold 17 atoms"):
        FusedEngine(small, "fp16_autocast", DEVICE, MOLECULES)(on_device([Atoms("H17", np.zeros((17, 3)))]))
    with pytest.raises(EngineError, match="takes no periodic systems"):
        fused_engine(small, "fp32")(on_device([box]))


def test_too_many_molecules_are_refused(small: PaiNN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlff_exp.engines.fused.launchers.MAX_PROGRAMS", 2)
    with pytest.raises(EngineError, match="takes up to 2 molecules of this size at once, and this batch has 3: split"):
        fused_engine(small, "fp32")(on_device([molecule("H2O")] * 3))


def test_steps_in_one_launch_are_those_of_velocity_verlet(small: PaiNN) -> None:
    """Two molecules, the smaller with padding."""
    systems = [rattled("CH3OH", 1), rattled("H2O", 2)]
    moved = []
    for engine in (reference(small), FusedEngine(small, "fp32", DEVICE, MOLECULES)):
        dynamics = Dynamics(engine, systems, timestep_fs=0.5)
        state = dynamics.state(dynamics.batch.positions, 0.01 * torch.ones_like(dynamics.batch.positions))
        dynamics._steps(state, 3, dynamics.engine)
        moved.append(state)
    assert dynamics.engine.can_integrate(dynamics.batch)  # type: ignore[attr-defined]
    assert dynamics.engine.evaluations == 4 * len(systems)
    assert float((moved[0].positions - dynamics.batch.positions).abs().max()) > 0.01
    for name in ("positions", "velocities", "energy", "forces"):
        torch.testing.assert_close(getattr(moved[1], name), getattr(moved[0], name), rtol=1e-5, atol=1e-4, msg=name)


@pytest.fixture(scope="module")
def of_every_size() -> list[Atoms]:
    """A molecule for each number of atoms from 2 to 32."""
    small = [molecule(name) for name in ("CO", "H2O", "NH3", "CH4", "CH3OH", "H3CNH2", "C2H6")]
    unseen = [unseen_molecule(index) for index in range(200)]
    sizes = {len(atoms): atoms for atoms in small + unseen}
    assert sorted(sizes) == list(range(2, 33))
    for n_atoms, atoms in sizes.items():
        atoms.positions += np.random.default_rng(n_atoms).normal(scale=0.05, size=atoms.positions.shape)
    return [sizes[n_atoms] for n_atoms in sorted(sizes)]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ENGINES["fused"].precisions)
@pytest.mark.parametrize("first", [2, 17])
def test_every_size_on_the_gpu(student: PaiNN, of_every_size: list[Atoms], first: int, precision: Precision) -> None:
    engine = make_engine(student, "fused", precision, DEVICE)
    for atoms in of_every_size[first - 2 : first + 14]:
        require_correct(engine, reference(student), on_device([atoms]), precision)


@pytest.mark.gpu
@pytest.mark.parametrize("n_systems", [1, 2, 3, 5, 16, 17, 33, 64, 65, 132, 300])
def test_every_batch_on_the_gpu(student: PaiNN, n_systems: int) -> None:
    engine = make_engine(student, "fused", "fp32", DEVICE)
    batch = on_device([rattled("C6H6" if seed % 3 else "CH4", seed) for seed in range(n_systems)])
    require_correct(engine, reference(student), batch, "fp32")
    first = engine(batch).forces
    for _ in range(20):
        assert torch.equal(engine(batch).forces, first)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["student", "student_small"])
@pytest.mark.parametrize("n_systems", [1, 5, 300])
def test_a_program_for_each_molecule_on_the_gpu(name: str, n_systems: int) -> None:
    """More molecules than multiprocessors as well."""
    model = load_checkpoint(name).model.to(DEVICE)
    assert isinstance(model, PaiNN)
    precision: Precision = "fp16_autocast"
    engine = FusedEngine(model, precision, DEVICE, MOLECULES)
    batch = on_device([rattled("C6H6" if seed % 3 else "CH4", seed) for seed in range(n_systems)])
    require_correct(engine, reference(model), batch, precision)
    first = engine(batch).forces
    for _ in range(20):
        assert torch.equal(engine(batch).forces, first)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [None, MOLECULES])
def test_dynamics_are_those_of_eager_on_the_gpu(student: PaiNN, shape: Shape | None) -> None:
    positions = []
    precision: Precision = "fp32" if shape is None else "fp16_autocast"
    fused = CudaGraphEngine("fused", FusedEngine(student.to(DEVICE), precision, DEVICE, shape))
    assert fused.capturable.can_integrate(on_device([molecule("CH3OH")])) == (shape is not None)  # type: ignore[attr-defined]
    for engine in (reference(student), fused):
        dynamics = Dynamics(engine, [molecule("CH3OH")] * 2, timestep_fs=0.2)
        state = dynamics.state(dynamics.batch.positions, torch.zeros_like(dynamics.batch.positions))
        positions.append(dynamics.run(state, 500, record_every=10).positions)
    assert np.abs(positions[0][-1] - positions[0][0]).max() > 0.01
    np.testing.assert_allclose(positions[1], positions[0], atol=1e-4 if shape is None else 0.02)


@pytest.mark.parametrize("precision", ENGINES["fused"].precisions)
@pytest.mark.parametrize("n_systems", [1, 32, 33, 1024])
def test_large_molecules_are_not_joined(n_systems: int, precision: Precision) -> None:
    """Their programs would need more shared memory than many a GPU has."""
    for n_slots in (33, 64):
        shape = shape_for(n_systems, n_slots, 128, precision, DEVICE)
        assert isinstance(shape, StagedShape)
        assert not shape.joins


@pytest.mark.parametrize(
    ("n_systems", "n_slots", "n_features", "precision", "shared_memory", "whole"),
    [
        (132, 16, 128, "fp16_autocast", 232_448, True),
        (33, 12, 64, "fp16_autocast", 232_448, True),
        (32, 12, 128, "fp16_autocast", 232_448, False),
        (133, 12, 128, "fp16_autocast", 232_448, False),
        (132, 17, 128, "fp16_autocast", 232_448, False),
        (132, 12, 256, "fp16_autocast", 232_448, False),
        (132, 12, 128, "tf32", 232_448, False),
        (132, 12, 128, "fp16_autocast", 101_376, False),
    ],
)
def test_molecules_have_a_program_each_where_there_is_a_multiprocessor_for_it(
    monkeypatch: pytest.MonkeyPatch,
    n_systems: int, n_slots: int, n_features: int, precision: Precision, shared_memory: int, whole: bool,
) -> None:  # fmt: skip
    found = types.SimpleNamespace(multi_processor_count=132, shared_memory_per_block_optin=shared_memory)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: found)
    shape = shape_for(n_systems, n_slots, n_features, precision, torch.device("cuda"))
    assert shape == MOLECULES if whole else isinstance(shape, StagedShape)
    assert isinstance(shape_for(n_systems, n_slots, n_features, precision, torch.device("cpu")), StagedShape)


@pytest.mark.parametrize("precision", ["fp32", "fp16_autocast"])
@pytest.mark.parametrize("n_systems", [4, 5, 32])
@pytest.mark.parametrize("shared_memory", [101_376, 232_448])
def test_programs_are_joined_where_the_gpu_has_shared_memory_for_them(
    monkeypatch: pytest.MonkeyPatch, n_systems: int, precision: Precision, shared_memory: int
) -> None:
    found = types.SimpleNamespace(multi_processor_count=132, shared_memory_per_block_optin=shared_memory)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: found)
    shape = shape_for(n_systems, 12, 128, precision, torch.device("cuda"))
    assert isinstance(shape, StagedShape)
    assert shape.joins == (precision != "fp32" or n_systems == 4 or shared_memory > 101_376)


def test_shapes_are_read_from_their_numbers() -> None:
    assert parse_shape("16,1,16,4,0,16,4,1") == WIDE
    assert parse_shape("8,255") == MOLECULES
    for words in ("16", "16,1,16,4,yes,16,4,0"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"is neither slots,molecules,.*nor warps,registers"):
            parse_shape(words)


def test_timing_shapes_needs_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["fused_shapes", "--output", str(tmp_path)])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs a CUDA GPU"):
        fused_shapes.main()


@pytest.mark.gpu
def test_shapes_are_timed_side_by_side_on_the_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = "fused_shapes --precision fp32 --batch-size 2 --shape 16,4,16,4,0,8,2,0 --min-calls 5 --output"
    monkeypatch.setattr("sys.argv", [*words.split(), str(tmp_path)])
    fused_shapes.main()
    *_, chosen, other = (tmp_path / "fused_shapes.md").read_text().splitlines()
    assert "(chosen)" in chosen
    assert "16,4,16,4,0,8,2,0" in other
    for line in (chosen, other):
        assert "_message_back" in line
        assert float(line.split("|")[4]) > 0
