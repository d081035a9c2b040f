"""Save and load the state of molecular dynamics, so that a killed run can go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mlff_exp.common import atomic_file, parse_json, typed_value
from mlff_exp.config import ConfigError
from mlff_exp.dynamics.state import MDState, Snapshot
from mlff_exp.results import STATE_FILE
from mlff_exp.structures import Expected, read_arrays

STATE_COLUMNS = ("positions", "velocities", "forces", "energy")
# Shapes: n systems with s rows each, a rows in all, r frames. The names are those of `recording.Trajectory`.
COLUMNS = {
    **dict.fromkeys(("potential", "kinetic", "displacement", "bond_change"), Expected("float64", ("r", "n"))),
    "momentum": Expected("float64", ("r", "n"), is_finite=False),  # atoms that do not move have a momentum of NaN
    **dict.fromkeys(("positions", "velocities"), Expected("float64", ("r", "n", "s", 3))),
}
ARRAYS = {
    **{
        f"{which}_{name}": Expected("float64", ("n",) if name == "energy" else ("a", 3))
        for which in ("now", "start")
        for name in STATE_COLUMNS
    },
    **{f"record_{name}": column for name, column in COLUMNS.items()},
    "steps": Expected("int64", ("r",)),
    "identity": Expected("str", ()),
    "sha256": Expected("str", ()),
}
# The column of the frames that holds each part of a state.
RECORDED = {"energy": "potential", "positions": "positions", "velocities": "velocities"}


def save_state(directory: Path, snapshot: Snapshot, start: MDState, identity: Mapping[str, Any]) -> None:
    """Write a snapshot, the state at the start of the run, and the identity of the run, in one atomic step.

    Args:
        directory: the directory of the run.
        snapshot: the point from which the run can go on.
        start: the state with which the run began.
        identity: plain values that have to be the same when the run goes on.
    """
    arrays = {f"now_{name}": getattr(snapshot.state, name).cpu().numpy() for name in STATE_COLUMNS}
    arrays |= {f"start_{name}": getattr(start, name).cpu().numpy() for name in STATE_COLUMNS}
    arrays |= {f"record_{name}": column.numpy() for name, column in snapshot.columns.items()}
    arrays |= {"steps": np.array(snapshot.steps), "identity": np.array(json.dumps(identity, sort_keys=True))}
    with atomic_file(directory / STATE_FILE) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays, sha256=np.array(_sha256(arrays)))


def load_state(directory: Path, identity: Mapping[str, Any], device: torch.device) -> tuple[Snapshot, MDState]:
    """Read the snapshot and the start that `save_state` wrote.

    Args:
        directory: the directory of the run.
        identity: plain values that have to equal those that were saved.
        device: the device of the tensors.

    Returns:
        The snapshot, and the state with which the run began.

    Raises:
        ConfigError: the file is missing or damaged, or the identities differ; the message names the differences.
    """
    path = directory / STATE_FILE
    if not path.is_file():
        raise ConfigError(f"task.resume={directory}: there is no {STATE_FILE}; only an unfinished NVE run leaves one")
    try:
        arrays = read_arrays(path, ARRAYS)
        found = typed_value(Mapping[str, Any], parse_json(str(arrays["identity"])), "identity")
        steps = arrays["steps"].tolist()
        if not steps or steps[0] < 0 or (np.diff(steps) <= 0).any():
            raise ValueError("steps do not go up from 0 or more")
        n_systems, n_slots = arrays["record_positions"].shape[1:3]
        if n_systems * n_slots != len(arrays["now_positions"]):
            raise ValueError(f"now_positions has not {n_systems * n_slots} atoms, as record_positions has")
        for which, record in (("now", -1), ("start", 0)):
            for name, column in RECORDED.items():
                recorded = arrays[f"record_{column}"][record]
                if not np.array_equal(arrays[f"{which}_{name}"].ravel(), recorded.ravel()):
                    raise ValueError(f"{which}_{name} is not what record_{column} has of step {steps[record]}")
        if str(arrays.pop("sha256")) != _sha256(arrays):
            raise ValueError("its numbers are not those that were written")
    except ValueError as error:
        raise ConfigError(f"task.resume={directory}: {STATE_FILE} is damaged: {error}") from error
    now, start = (
        MDState(**{name: torch.from_numpy(arrays[f"{which}_{name}"]).to(device) for name in STATE_COLUMNS}, step=step)
        for which, step in (("now", steps[-1]), ("start", steps[0]))
    )
    columns = {name: torch.from_numpy(arrays[f"record_{name}"]) for name in COLUMNS}
    wanted = json.loads(json.dumps(identity))
    other = [
        f"{key} was {found.get(key)} and is {wanted.get(key)}"
        for key in sorted({*found, *wanted})
        if found.get(key) != wanted.get(key)
    ]
    if other:
        raise ConfigError(f"task.resume={directory} is another run: {'; '.join(other)}")
    return Snapshot(now, steps, columns), start


def _sha256(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the SHA-256 of all arrays and their names, as hexadecimal digits."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        found.update(np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()
