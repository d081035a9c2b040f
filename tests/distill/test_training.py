"""Packing, training and what `task=distill` makes of them."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_exp.config.errors import ConfigError
from mlff_exp.distill.exploration import ExploredFrames, explore, select_worst
from mlff_exp.distill.training import Schedule, Training, force_field_errors, learning_rate, load_averaged, predict
from mlff_exp.models.checkpoint import load_checkpoint
from mlff_exp.models.embedded import Architecture
from mlff_exp.models.painn import PaiNN
from mlff_exp.results.progress import Progress
from mlff_exp.structures.batch import AtomicBatch
from mlff_exp.structures.datasets import Dataset, LabelledStructure, reference_energies
from mlff_exp.structures.packing import evaluate, make_buckets, pack_batches
from tests.conftest import make_random_model
from tests.helpers.command import mlff_exp, results
from tests.helpers.here import run_here, undocumented
from tests.helpers.labels import labelled_by, random_dataset

CPU = torch.device("cpu")
SCHEDULE = Schedule(steps=12, atoms_per_step=24, learning_rate=1e-3, energy_weight=10.0, ema_decay=0.99)


@pytest.fixture(scope="module")
def exact(student: PaiNN) -> PaiNN:
    """The shipped weights in FP64."""
    return copy.deepcopy(student).cast(torch.float64)


@given(seed=st.integers(0, 2**32 - 1), n_systems=st.none() | st.integers(1, 5), slot_step=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_packing_returns_every_structure_in_order(seed: int, n_systems: int | None, slot_step: int) -> None:
    dataset = random_dataset(seed)
    shapes = set()

    def weighted_numbers(batch: AtomicBatch) -> tuple[torch.Tensor, torch.Tensor]:
        shapes.add(batch.shape_key)
        per_atom = batch.atomic_numbers * batch.positions.square().sum(dim=-1)
        return batch.per_system(per_atom).sum(dim=1), batch.positions * batch.atomic_numbers.unsqueeze(-1)

    batches = pack_batches(dataset, 5.0, CPU, slot_step=slot_step, n_systems=n_systems)
    energies, forces = evaluate(weighted_numbers, dataset, batches)
    per_atom = dataset.atomic_numbers * np.square(dataset.positions).sum(axis=1)
    np.testing.assert_allclose(energies, np.add.reduceat(per_atom, dataset.starts))
    np.testing.assert_allclose(forces, dataset.positions * dataset.atomic_numbers[:, None])
    if n_systems is not None:
        assert len(shapes) == len(np.unique(-(-dataset.counts // slot_step)))


def test_padding_in_a_packed_batch_changes_nothing(exact: PaiNN) -> None:
    dataset = labelled_by(exact)
    energies, forces = predict(exact, dataset, CPU)
    np.testing.assert_allclose(energies, dataset.energies, atol=1e-9)
    np.testing.assert_allclose(forces, dataset.forces, atol=0.51e-3)
    errors = force_field_errors(exact, dataset, CPU)
    assert errors["energy_mae_mev_per_atom"] < 1e-6
    assert errors["force_rmse_mev_per_ang"] < 0.35  # labels are rounded to 1 meV/Å, which is an error of 0.29
    assert errors["force_r2"] == pytest.approx(1, abs=1e-5)


def test_a_structure_that_is_too_large_is_refused() -> None:
    frame = LabelledStructure(
        "big", "rattled", np.ones(65, dtype=np.int64), np.zeros((65, 3), np.int16), 0.0, np.zeros((65, 3))
    )
    with pytest.raises(ValueError, match="a structure of 65 atoms: packed batches hold up to 64"):
        make_buckets(Dataset.from_structures([frame]), 5.0, CPU)


def test_an_interrupted_training_ends_with_the_same_weights(exact: PaiNN, tmp_path: Path) -> None:
    dataset = labelled_by(exact)

    def begin() -> Training:
        return Training(make_random_model().cast(torch.float32), dataset, SCHEDULE, seed=3, device=CPU)

    whole = begin()
    assert whole.run(tmp_path / "whole.pt", math.inf, lambda current: None)
    sittings = 0
    while True:
        current = begin()
        sittings += 1
        if current.run(tmp_path / "parts.pt", 0.0, lambda current: None):
            break
    assert sittings == SCHEDULE.steps
    assert [step for step, _ in current.losses] == list(range(1, SCHEDULE.steps + 1))
    for ours, theirs in zip(whole.averaged.parameters(), current.averaged.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_state_of_a_training_is_checked(exact: PaiNN, tmp_path: Path) -> None:
    path, dataset = tmp_path / "state.pt", labelled_by(exact)

    def begin() -> Training:
        return Training(make_random_model().cast(torch.float32), dataset, SCHEDULE, seed=3, device=CPU)

    begin().run(path, 0.0, lambda current: None)
    good = torch.load(path, weights_only=True)
    first = next(iter(good["model"]))
    moments = good["optimizer"]["state"]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"step": "1"}, "its step is '1'"),
        ({"step": -1}, "its step is -1"),
        ({"step": 7}, "its losses are no pairs"),
        ({"losses": [(1, math.nan)]}, "its losses are no pairs"),
        ({"losses": [1]}, "its losses are no pairs"),
        ({"seconds": None}, "its seconds are None"),
        ({"other": 1}, "must hold exactly"),
        ({"model": {**good["model"], first: good["model"][first] * math.nan}}, "holds NaN"),
        ({"averaged": {**good["averaged"], first: torch.zeros(1)}}, "its averaged does not fit the model"),
        ({"averaged": []}, "holds no weights by name"),
        ({"optimizer": {}}, "must hold exactly state, param_groups"),
        ({"optimizer": {"state": {0: {"exp_avg": moments[0]["exp_avg"] * math.inf}}, "param_groups": []}}, "holds NaN"),
        ({"optimizer": {"state": {}, "param_groups": []}}, "its optimizer"),
    ]
    for changed, message in cases:
        torch.save({**good, **changed}, path)
        with pytest.raises(ConfigError, match=f"state.pt holds no state of this training: .*{message}"):
            begin().run(path, 0.0, lambda current: None)
    for content in (b"", b"PK\x03\x04", b"garbage"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"state\.pt holds no state of this training"):
            load_averaged(make_random_model().cast(torch.float32), path)


@pytest.mark.gpu
def test_captured_steps_are_those_of_the_cpu(exact: PaiNN, tmp_path: Path) -> None:
    dataset = labelled_by(exact)
    losses, weights = [], []
    for name in ("cpu", "cuda"):
        current = Training(
            make_random_model().cast(torch.float32), dataset, SCHEDULE, seed=3, device=torch.device(name)
        )
        assert bool(current._graphs) is False
        assert current.run(tmp_path / f"{name}.pt", math.inf, lambda current: None)
        assert bool(current._graphs) is (name == "cuda")
        losses.append(current.losses[-1][1])
        weights.append(torch.cat([parameter.flatten().cpu() for parameter in current.averaged.parameters()]))
    before = torch.cat([parameter.flatten() for parameter in make_random_model().cast(torch.float32).parameters()])
    assert losses[1] == pytest.approx(losses[0], rel=0.01)  # products are in TF32 on a GPU
    assert (weights[1] - weights[0]).norm() < 0.1 * (weights[0] - before).norm()


def test_an_epoch_has_every_structure(exact: PaiNN) -> None:
    dataset = labelled_by(exact)
    current = Training(make_random_model().cast(torch.float32), dataset, SCHEDULE, seed=3, device=CPU)
    plan = current._batches()
    per_epoch = sum(-(-len(b) // n) for b, n in zip(current._buckets, current._n_systems, strict=True))
    orders = []
    for _ in range(2):
        seen: list[int] = []
        for _ in range(per_epoch):
            number, chosen = next(plan)
            seen += current._buckets[number].members[chosen].tolist()
        assert set(seen) == set(range(len(dataset)))
        orders.append(seen)
    assert orders[0] != orders[1]


def test_training_approaches_the_labels(exact: PaiNN, tmp_path: Path) -> None:
    dataset = labelled_by(exact)
    torch.manual_seed(1)
    student = PaiNN(Architecture(16, 1, 8), reference_energies(dataset))
    before = force_field_errors(student, dataset, CPU)
    schedule = Schedule(steps=200, atoms_per_step=64, learning_rate=5e-3, energy_weight=1.0, ema_decay=0.95)
    current = Training(student, dataset, schedule, seed=0, device=CPU)
    current.run(tmp_path / "state.pt", math.inf, lambda current: None)
    after = force_field_errors(current.averaged, dataset, CPU)
    assert after["force_rmse_mev_per_ang"] < 0.7 * before["force_rmse_mev_per_ang"]


@pytest.mark.parametrize(("step", "rate"), [(0, 1 / 20), (19, 1.0), (20, 1.0), (510, 0.5), (1000, 0.0)])
def test_the_schedule_warms_up_and_fades(step: int, rate: float) -> None:
    schedule = Schedule(steps=1000, atoms_per_step=1, learning_rate=1.0, energy_weight=1.0, ema_decay=0.9)
    assert learning_rate(step, schedule) == pytest.approx(rate)


@pytest.mark.slow
def test_exploration_marks_broken_frames(student: PaiNN, tmp_path: Path) -> None:
    calm = labelled_by(student, ("H2O", "CH4"))
    explored = explore(student, calm, n_frames=2, stride=5, seed=0, device=CPU)
    assert len(explored.names) == len(explored.atoms) == 2 * len(calm)
    assert not explored.exploded.any()
    explored.save(tmp_path / "frames.npz")
    again = ExploredFrames.load(tmp_path / "frames.npz")
    assert again.names == explored.names
    assert all((a.positions == b.positions).all() for a, b in zip(again.atoms, explored.atoms, strict=True))

    torch.manual_seed(0)
    wild = PaiNN(Architecture(16, 1, 8), dict.fromkeys(student.elements, 0.0))
    for parameter in wild.parameters():
        parameter.data.mul_(2)
    broken = explore(wild, calm, n_frames=20, stride=2, seed=0, device=CPU)
    assert broken.exploded.any()
    assert not broken.exploded.all()
    assert len(broken.atoms) < 20 * len(calm)
    assert all(np.isfinite(atoms.positions).all() for atoms in broken.atoms)


@given(seed=st.integers(0, 2**32 - 1), n_kept=st.integers(0, 40))
@settings(max_examples=25, deadline=None)
def test_exploded_frames_are_kept_first_and_then_the_worst(seed: int, n_kept: int) -> None:
    rng = np.random.default_rng(seed)
    exploded, error = rng.random(30) < 0.3, rng.random(30)
    kept = select_worst(exploded, error, n_kept)
    assert kept.sum() == min(n_kept, 30)
    for a in np.flatnonzero(kept):
        for b in np.flatnonzero(~kept):
            assert (exploded[a], error[a]) > (exploded[b], error[b])


def distill(*overrides: str) -> list[str]:
    return [
        "task=distill", "task.molecules=6", "task.analogues=1", "task.validation_molecules=1",
        "task.normal_modes=2", "task.rattled=2", "task.stretched=1", "task.md_share=0", "task.dimers=0",
        "task.water_clusters=0", "task.n_features=16", "task.n_interactions=1", "task.steps=200",
        "task.round_steps=20", "task.rounds=1", "task.explored_frames=1", "task.explored_stride=5",
        "task.explored_kept=5", "task.atoms_per_step=64", "task.learning_rate=5e-3", "task.energy_weight=1",
        "device=cpu", "tracking=offline", *overrides,
    ]  # fmt: skip


@pytest.mark.slow
def test_the_command_labels_trains_explores_and_continues(tmp_path: Path) -> None:
    interrupted = mlff_exp(tmp_path, *distill("task.budget_s=0.01"))
    assert interrupted.returncode == 0, interrupted.stderr
    (first,) = results(tmp_path)
    words = distill(f"task.directory={tmp_path}/outputs/distill", "task.workers=1")  # two in the command
    with pytest.raises(ConfigError, match=r"task\.data_fraction=0\.5 needs the data of all rounds"):
        run_here(tmp_path / "early", *words, "task.data_fraction=0.5")
    shards = {path: path.stat().st_mtime_ns for path in tmp_path.glob("outputs/distill/*/*.npz")}
    assert len(shards) == 8
    last = run_here(tmp_path / "last", *words)
    assert (first.tags["training.complete"], first.tags["training.round"]) == ("false", "0")
    assert (last.tags["training.complete"], last.tags["training.round"]) == ("true", "1")
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    assert last.metrics["training_structures"] == first.metrics["training_structures"] + 5
    assert last.metrics["training_steps"] == 200
    assert undocumented(last) == set()
    left_out = {key: value for key, value in first.tags.items() if key.startswith("left_out.")}
    assert left_out
    assert {key: last.tags[key] for key in left_out} == left_out
    assert 0 < last.metrics["force_mae_mev_per_ang"] < last.metrics["force_rmse_mev_per_ang"]
    assert last.metrics["training_loss"] < 0.8 * first.metrics["training_loss"]
    told, _ = Progress(tmp_path / "last").read(0)
    assert set().union(*(record.metrics for record in told)) & set(last.metrics) == set()

    loaded = load_checkpoint(str(tmp_path / "last" / "student.safetensors"))
    assert loaded.header.training_data_sha256 == last.tags["dataset.sha256"]
    assert loaded.weights_sha256 == last.tags["checkpoint.sha256"]
