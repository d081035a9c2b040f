"""Profile which kernels a call launches on a GPU, and how long each runs."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Kernel:
    """All launches of one kernel in a call, with their total time in µs."""

    name: str
    launches: int
    total_us: float


def profile_kernels(call: Callable[[], object]) -> list[Kernel]:
    """Return kernels, copies and fills of one call on the current GPU, in descending order of total time."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:
        call()
        torch.cuda.synchronize()
    found: dict[str, tuple[int, float]] = {}
    for event in profiler.events():
        if event.device_type.name == "CUDA":
            launches, total_us = found.get(event.name, (0, 0.0))
            found[event.name] = launches + 1, total_us + event.device_time
    return sorted((Kernel(name, *seen) for name, seen in found.items()), key=lambda kernel: -kernel.total_us)


def write_kernels(kernels: Sequence[Kernel], path: Path) -> None:
    """Write a table of kernels as comma-separated values."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["total_us", "launches", "kernel"])
        writer.writerows([f"{kernel.total_us:.1f}", kernel.launches, kernel.name] for kernel in kernels)
