"""The default timestep of ``task=nve``. Nothing in this module imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlff_exp.common import expand_home
from mlff_exp.config import ConfigError, Crystal, FileSystem, MoleculeSystem, System, WaterBox
from mlff_exp.structures import Timestep, build_systems, usual_timestep
from mlff_exp.tasks.options import NveTask


def timestep_by_system(*, _root_: DictConfig) -> float:
    """Return the timestep, fs, that suits the systems of a configuration; ``${timestep_by_system:}`` in its files.

    Args:
        _root_: the configuration. OmegaConf passes it to a resolver under this name.

    Returns:
        The timestep. If the systems are wrong, it is that of the dataclass, and what builds them reports the error.
    """
    try:
        names = OmegaConf.select(_root_, "task.systems")
        return timestep_of(OmegaConf.to_object(_root_["system"]), list(names or ())).fs
    except (ConfigError, OmegaConfBaseException, OSError):
        return NveTask.timestep_fs


def timestep_of(system: Any, names: Sequence[str] = ()) -> Timestep:
    """Return the default timestep with its reason.

    Args:
        system: the system of a configuration, as its dataclass.
        names: names of molecules that move instead, as in ``task.systems``.

    Raises:
        ConfigError: there is no such system, or it can't be read.
    """
    samples: list[System] = [MoleculeSystem(name) for name in names] if names else [_smallest(system)]
    return min((_of_one(sample) for sample in samples), key=lambda chosen: chosen.fs)


def _smallest(system: Any) -> System:
    """Return the smallest system with the same atoms and bonds."""
    match system:
        case WaterBox():
            return replace(system, n_molecules=8)
        case Crystal():
            return replace(system, supercell=1)
        case MoleculeSystem() | FileSystem():
            return system
    raise ConfigError(f"system={system!r:.60} has no schema")


def _of_one(sample: System) -> Timestep:
    kind: Callable[..., System] = type(sample)
    changed = None
    if isinstance(sample, FileSystem):
        state = expand_home(sample.path).stat()
        changed = state.st_mtime_ns, state.st_size
    return _cached(kind, tuple(asdict(sample).items()), changed)


@lru_cache(maxsize=256)
def _cached(
    kind: Callable[..., System], options: tuple[tuple[str, Any], ...], changed: tuple[int, int] | None
) -> Timestep:
    """Choose the timestep of a system once, because a configuration asks several times. ``changed`` is of its file."""
    return usual_timestep(build_systems(kind(**dict(options))).values())
