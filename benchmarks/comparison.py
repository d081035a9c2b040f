"""Check contenders against eager FP64, and time them in alternating blocks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from torch import Tensor

from benchmarks.contenders import Contender, Running, Work
from mlff_exp.dynamics import Dynamics
from mlff_exp.engines import make_engine, stop_compile_workers
from mlff_exp.measure import (
    FORCE_FLOOR_EV_PER_ANG,
    TOLERANCES,
    Candidate,
    DisturbanceMonitor,
    judge_controls,
    make_controls,
    measure_side_by_side,
    time_ratio,
)
from mlff_exp.results import Estimate, Timing

TEMPERATURE_K = 300.0
# Relative to the displacement of the atoms: a wrong mass or timestep gives far more, a low precision far less.
MOTION_TOLERANCE = 0.01


class AbsentError(RuntimeError):
    """A contender can't take part here; the message says why."""


class DifferentWorkError(RuntimeError):
    """A contender does not do the same work as the others."""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: name of the contender.
        absent: why it was not measured, or None.
        failed: whether it should have been measured and failed.
        package: the package that did the work, with its version.
        timing: raw samples of calls of several steps each, or None.
        ratio: its time over ours, or None.
    """

    name: str
    absent: str | None = None
    failed: bool = False
    package: str = ""
    timing: Timing | None = None
    ratio: Estimate | None = None


def make_start(batch_size: int, seed: int) -> list[Atoms]:
    """Make benzenes with different velocities."""
    rng = np.random.default_rng(seed)
    systems = [molecule("C6H6") for _ in range(batch_size)]
    for atoms in systems:
        thermalize_momenta(atoms, TEMPERATURE_K, rng=rng)
        Stationary(atoms)
    return systems


def compare(
    work: Work, contenders: Mapping[str, Contender], min_calls: int, min_time_s: float, monitor: DisturbanceMonitor
) -> tuple[list[Row], list[str]]:
    """Check and time all contenders that can run here.

    Args:
        work: the work to do.
        contenders: by name; one of them is "ours".
        min_calls: number of samples of each.
        min_time_s: time to measure each for, s.
        monitor: samples the machine between blocks.

    Returns:
        A row for each contender, even if its first call failed, and reasons not to trust the times.

    Raises:
        DifferentWorkError: a contender with our weights has other positions or forces than eager FP64.
        EngineError: the device does not have the engine or precision.
    """
    running: dict[str, Running] = {}
    rows: dict[str, Row] = {}
    first_call_s: dict[str, float] = {}
    for name, contender in contenders.items():
        started = time.perf_counter()
        try:
            one = make_ready(contender, work)
            one.call()
        except AbsentError as error:
            rows[name] = Row(name, absent=str(error))
            continue
        except RuntimeError as error:  # what compilers, kernels and allocators raise
            if name == "ours":
                raise
            rows[name] = Row(name, absent=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", failed=True)
            continue
        first_call_s[name] = time.perf_counter() - started
        if contender.weights == "ours":
            require_same_work(name, one, work)
        running[name] = one

    candidates = {name: Candidate(one.call, min_calls, min_time_s) for name, one in running.items()}
    ours = {"ours": candidates["ours"]}  # first: it is what the others are compared with
    stop_compile_workers()
    timing = measure_side_by_side(
        ours | candidates | make_controls(candidates["ours"]), work.device, "peers", monitor.sample
    )
    for name, one in running.items():
        if not _on_cpu(one.positions()).isfinite().all():
            raise DifferentWorkError(f"{name}: positions became NaN or infinite, so its times mean nothing")
        package = contenders[name].package
        rows[name] = Row(
            name,
            package=f"{package} {version(package)}" if package else "",
            timing=replace(timing[name], first_call_s=first_call_s[name]),
            ratio=time_ratio(timing[name], timing["ours"]),
        )
    return [rows[name] for name in contenders], monitor.faults() + judge_controls(timing, "ours").faults


def make_ready(contender: Contender, work: Work) -> Running:
    """Start a contender.

    Raises:
        AbsentError: it is not installed, or can't do this work on this device.
    """
    if contender.cuda_only and work.device.type != "cuda":
        raise AbsentError("needs a CUDA GPU")
    if len(work.systems) > 1 and not contender.batches:
        raise AbsentError("moves one structure at a time")
    try:
        if contender.package:
            version(contender.package)
        return contender.start(work)
    except ModuleNotFoundError as error:
        raise AbsentError(f"not installed: {error.name}") from error
    except ImportError as error:
        raise AbsentError(f"cannot be imported: {error}") from error


def require_same_work(name: str, running: Running, work: Work) -> None:
    """Check positions and forces of a contender after its first call against eager FP64 with the same weights.

    Raises:
        DifferentWorkError: a difference exceeds its tolerance. The message gives both.
    """
    reference = make_engine(work.checkpoint.model, "eager", "fp64", work.device)
    dynamics = Dynamics(reference, list(work.systems), work.timestep_fs)
    begin = dynamics.batch.positions
    state = dynamics.state(begin, work.velocities())
    for _ in range(work.steps_per_call):
        dynamics.step(state)
    positions, forces = _on_cpu(running.positions()), _on_cpu(running.forces())
    way = _on_cpu(state.positions - begin)
    motion_error = float((positions - _on_cpu(begin) - way).norm() / way.norm())
    if not motion_error <= MOTION_TOLERANCE:
        raise DifferentWorkError(
            f"{name}: after {work.steps_per_call} steps its atoms are {motion_error:.2g} of their way off eager FP64, "
            f"allowed {MOTION_TOLERANCE:g}"
        )
    expected = _on_cpu(reference(dynamics.batch.with_positions(positions.to(work.device))).forces)
    size = max(float(expected.norm()), FORCE_FLOOR_EV_PER_ANG * len(expected) ** 0.5)
    force_error, allowed = float((forces - expected).norm()) / size, TOLERANCES[work.precision].force
    if not force_error <= allowed:
        raise DifferentWorkError(f"{name}: forces are {force_error:.2g} off eager FP64, relative, allowed {allowed:g}")


def _on_cpu(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64, device="cpu")
