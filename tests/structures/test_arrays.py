"""Damaged or foreign files of arrays are refused before memory is allocated."""

from __future__ import annotations

import dataclasses
import io
import json
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule

from mlff_exp.config.errors import ConfigError
from mlff_exp.distill.exploration import ExploredFrames
from mlff_exp.dynamics.restart import load_state, save_state
from mlff_exp.dynamics.state import MDState, Snapshot
from mlff_exp.results.result import STATE_FILE
from mlff_exp.structures.datasets import Dataset, DatasetError, Shard
from tests.helpers.labels import random_dataset


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("counts", lambda a: a[:-1], "does not fit the other arrays"),
        ("counts", lambda a: -a, r"counts\[0\] is -\d+, which is not from 1 to 32767"),
        ("counts", lambda a: a + 1, r"counts add up to \d+ atoms, and there are"),
        ("counts", lambda a: a.astype(np.int64), "counts is int64 with 1 dimensions, not int16 with 1"),
        ("molecule", lambda a: a + 10**6, "molecule.* is not from 0 to"),
        ("origin", lambda a: a + 100, "origin.* is not from 0 to 8"),
        ("atomic_numbers", lambda a: a * 0, r"atomic_numbers\[0\] is 0"),
        ("atomic_numbers", lambda a: a * 0 - 3, r"atomic_numbers\[0\] is -3"),
        ("position_steps", lambda a: a[:, :2], r"position_steps has the shape \(\d+, 2\)"),
        ("position_steps", lambda a: a.astype(np.float64), "position_steps is float64"),
        ("energies", lambda a: a * np.nan, "energies holds NaN or infinite"),
        ("energies", lambda a: a * 0 + 1e300, r"energies\[0\] is 1e\+300"),
        ("energies", lambda a: a.astype(complex), "energies is complex128"),
        ("energies", lambda a: a.astype(np.float32), "energies is float32"),
        ("force_steps", lambda a: a[:0], "force_steps has the shape"),
    ],
)
def test_the_arrays_of_a_dataset_are_checked(
    tmp_path: Path, name: str, change: Callable[[Any], Any], message: str
) -> None:
    dataset = random_dataset(0)
    dataclasses.replace(dataset, **{name: change(getattr(dataset, name))}).save(tmp_path / "set.npz")
    with pytest.raises(DatasetError, match=rf"set.npz is not a dataset of labelled structures: .*{message}"):
        Dataset.load(tmp_path / "set.npz")


def test_a_dataset_without_structures_is_refused(tmp_path: Path) -> None:
    dataset = random_dataset(0)
    empty = dataset.select(np.zeros(len(dataset), dtype=bool))
    empty.save(tmp_path / "set.npz")
    with pytest.raises(DatasetError):
        Dataset.load(tmp_path / "set.npz")


def rewritten(path: Path, name: str, content: bytes) -> None:
    """The same npz with other bytes for one of its arrays."""
    with zipfile.ZipFile(path) as file:
        members = {member: file.read(member) for member in file.namelist()}
    members[f"{name}.npy"] = content
    with zipfile.ZipFile(path, "w") as file:
        for member, data in members.items():
            file.writestr(member, data)


def header(shape: tuple[int, ...], dtype: str) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize("shape", [(10**9,), (10**12,), (2**62,), (-1,)])
def test_a_shape_larger_than_the_file_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "set.npz"
    random_dataset(0).save(path)
    rewritten(path, "energies", header(shape, "<f8") + b"\0" * 80)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DatasetError, match=r"energies needs .* bytes for its shape .*, but the file has 80"):
        Dataset.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"\x93NUMPY\x09\x00", header((3,), "<f8")[:30], header((3,), "|O") + b"\x80\x04N."]
)
def test_content_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "set.npz"
    random_dataset(0).save(path)
    rewritten(path, "energies", content)
    with pytest.raises(DatasetError, match=r"set.npz is not a dataset"):
        Dataset.load(path)


def test_the_arrays_of_a_shard_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "shard.npz"
    Shard(random_dataset(0)).save(path)
    assert Shard.load(path).dataset is not None
    Shard(None).save(path)
    assert Shard.load(path).dataset is None
    for text in ("[]", '{"a": 0}', '{"a": "many"}', "nonsense", "[" * 100_000):
        np.savez(path, failures=np.array(text))
        with pytest.raises(DatasetError, match=r"shard.npz is damaged; remove it and run again"):
            Shard.load(path)


def test_the_arrays_of_explored_frames_are_checked(tmp_path: Path) -> None:
    path, atoms = tmp_path / "frames.npz", [molecule("H2O"), molecule("CH4")]
    ExploredFrames(["O", "C"], atoms, np.array([True, False])).save(path)
    assert [len(one) for one in ExploredFrames.load(path).atoms] == [3, 5]
    with np.load(path) as file:
        arrays = dict(file)
    for changed in ({"counts": np.array([3, 4])}, {"numbers": arrays["numbers"] * 0}, {"names": np.array(["O"])}):
        np.savez(path, **{**arrays, **changed})
        with pytest.raises(DatasetError, match=r"frames.npz holds no explored frames"):
            ExploredFrames.load(path)


def test_the_arrays_of_a_state_are_checked(tmp_path: Path) -> None:
    atoms = torch.zeros(6, 3, dtype=torch.float64)
    state = MDState(atoms, atoms, atoms, torch.zeros(2, dtype=torch.float64), 10)
    flat, deep = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, 2, 3, 3, dtype=torch.float64)
    columns = {
        **dict.fromkeys(("potential", "kinetic", "displacement", "bond_change", "momentum"), flat),
        **dict.fromkeys(("positions", "velocities"), deep),
    }
    save_state(tmp_path, Snapshot(state, [0, 10], columns), state, {"seed": 1})

    def load() -> tuple[Snapshot, MDState]:
        return load_state(tmp_path, {"seed": 1}, torch.device("cpu"))

    now, start = load()
    assert {name: column.shape for name, column in now.columns.items()} == {k: v.shape for k, v in columns.items()}
    assert (now.state.step, start.step, now.steps) == (10, 0, [0, 10])
    with np.load(tmp_path / STATE_FILE) as file:
        arrays = dict(file)
    for changed, message in [
        ({"steps": np.array([10, 0])}, "steps do not go up"),
        ({"steps": np.array([0, 10, 20])}, "does not fit"),
        ({"now_positions": arrays["now_positions"] * np.nan}, "now_positions holds NaN"),
        ({"start_velocities": arrays["start_velocities"][:5]}, "does not fit"),
        ({"now_energy": np.zeros(3)}, "does not fit"),
        ({"now_energy": np.zeros(2, dtype=np.float32)}, "now_energy is float32"),
        ({"record_positions": np.zeros((2, 2, 4, 3))}, "does not fit|has not 8 atoms"),
        ({"identity": np.array("[]")}, "identity"),
        ({"identity": np.array("nonsense")}, "Expecting value"),
        ({"column_5": np.zeros(1)}, "unknown arrays: column_5"),
        ({"now_positions": arrays["now_positions"] + 1e9}, "now_positions is not what record_positions has of step 10"),
        (
            {"now_velocities": arrays["now_velocities"] + 1},
            "now_velocities is not what record_velocities has of step 10",
        ),
        ({"now_energy": arrays["now_energy"] + 100}, "now_energy is not what record_potential has of step 10"),
        (
            {"start_positions": arrays["start_positions"] + 1},
            "start_positions is not what record_positions has of step 0",
        ),
        ({"now_forces": arrays["now_forces"] + 1}, "its numbers are not those that were written"),
        ({"start_forces": arrays["start_forces"] + 1}, "its numbers are not those that were written"),
        ({"record_kinetic": arrays["record_kinetic"] + 50}, "its numbers are not those that were written"),
        ({"steps": np.array([0, 20])}, "its numbers are not those that were written"),
        ({"sha256": np.array("0")}, "its numbers are not those that were written"),
    ]:
        np.savez(tmp_path / STATE_FILE, **{**arrays, **changed})
        with pytest.raises(ConfigError, match=rf"is damaged: .*({message})"):
            load()
    assert json.loads(str(arrays["identity"])) == {"seed": 1}
