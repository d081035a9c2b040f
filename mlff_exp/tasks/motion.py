"""The defaults of ``task=nve`` that depend on the system. Nothing in this module imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlff_exp.common import expand_home
from mlff_exp.config import COLD_CRYSTALS_K, ConfigError, Crystal, FileSystem, MoleculeSystem, System, WaterBox
from mlff_exp.tasks.options import NveTask

if TYPE_CHECKING:
    from mlff_exp.structures import Motion

Key = Literal["timestep_fs", "duration_ps", "temperature_k"]


def usual_by_system(key: Key, *, _root_: DictConfig) -> float:
    """Return what is usual for the systems of a configuration; ``${usual_by_system:timestep_fs}`` in its files.

    Args:
        key: what is asked for.
        _root_: the configuration. OmegaConf passes it to a resolver under this name.

    Returns:
        The number. If the systems are wrong, it is that of the dataclass, and what builds them reports the error.
    """
    try:
        names = OmegaConf.select(_root_, "task.systems")
        usual: Motion | NveTask = motion_of(OmegaConf.to_object(_root_["system"]), list(names or ()))
    except (ConfigError, OmegaConfBaseException, OSError):
        usual = NveTask()
    return float(getattr(usual, key))


def motion_of(system: Any, names: Sequence[str] = ()) -> Motion:
    """Return the default timestep, length and temperature with their reasons.

    Args:
        system: the system of a configuration, as its dataclass.
        names: names of molecules that move instead, as in ``task.systems``.

    Raises:
        ConfigError: there is no such system, or it can't be read.
    """
    # Imported here: ASE takes half a second, and only task=nve asks for what is usual.
    from mlff_exp.structures import together

    samples: list[System] = [MoleculeSystem(name) for name in names] if names else [_smallest(system)]
    return together(_of_one(sample) for sample in samples)


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


def _of_one(sample: System) -> Motion:
    kind: Callable[..., System] = type(sample)
    changed = None
    if isinstance(sample, FileSystem):
        state = expand_home(sample.path).stat()
        changed = state.st_mtime_ns, state.st_size
    motion = _cached(kind, tuple(asdict(sample).items()), changed)
    cold = COLD_CRYSTALS_K.get(sample.name) if isinstance(sample, Crystal) else None
    if cold is None:
        return motion
    return replace(motion, temperature_k=cold, cold=f"because {sample.name} melts below 300 K")


@lru_cache(maxsize=256)
def _cached(
    kind: Callable[..., System], options: tuple[tuple[str, Any], ...], changed: tuple[int, int] | None
) -> Motion:
    """Choose the motion of a system once, because a configuration asks several times. ``changed`` is of its file."""
    from mlff_exp.structures import build_systems, usual_motion

    return usual_motion(build_systems(kind(**dict(options))).values())
