"""A run of molecular dynamics on disk, whole or not at all, so that it can go on after a kill."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlff_exp.config import ConfigError
from mlff_exp.disk import whole
from mlff_exp.md import MDState, Snapshot
from mlff_exp.result import STATE_FILE

STATE = ("positions", "velocities", "forces", "energy")


def save(directory: Path, snapshot: Snapshot, start: MDState, identity: Mapping[str, Any]) -> None:
    """Write the snapshot, the state that the run began with, and what the run is.

    Args:
        directory: of the run.
        snapshot: to go on from.
        start: of the whole run.
        identity: plain values that have to be the same when it goes on.
    """
    arrays = {f"now_{name}": getattr(snapshot.state, name).cpu().numpy() for name in STATE}
    arrays |= {f"start_{name}": getattr(start, name).cpu().numpy() for name in STATE}
    arrays |= {f"column_{index}": column.numpy() for index, column in enumerate(snapshot.columns)}
    with whole(directory / STATE_FILE) as partial, partial.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            **arrays,
            steps=np.array(snapshot.steps),
            identity=np.array(json.dumps(identity, sort_keys=True)),
        )


def load(directory: Path, identity: Mapping[str, Any], device: torch.device) -> tuple[Snapshot, MDState]:
    """What `save` wrote: the snapshot and the start.

    Raises:
        ConfigError: there is none, it is damaged, or it is of a run with another identity; says in what they differ.
    """
    path = directory / STATE_FILE
    if not path.is_file():
        raise ConfigError(f"task.resume={directory}: there is no {STATE_FILE}; only an unfinished NVE run leaves one")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = json.loads(str(arrays["identity"]))
            steps = arrays["steps"].tolist()
            now, start = (
                MDState(**{name: torch.from_numpy(arrays[f"{which}_{name}"]).to(device) for name in STATE}, step=step)
                for which, step in (("now", steps[-1]), ("start", steps[0]))
            )
            n_columns = sum(name.startswith("column_") for name in arrays.files)
            columns = tuple(torch.from_numpy(arrays[f"column_{index}"]) for index in range(n_columns))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"task.resume={directory}: {STATE_FILE} is damaged: {error}") from error
    wanted = json.loads(json.dumps(identity))
    other = [
        f"{key} was {found.get(key)} and is {wanted.get(key)}"
        for key in sorted({*found, *wanted})
        if found.get(key) != wanted.get(key)
    ]
    if other:
        raise ConfigError(f"task.resume={directory} is another run: {'; '.join(other)}")
    return Snapshot(now, steps, columns), start
