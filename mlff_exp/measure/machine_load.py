"""Measure what else this machine is doing, and warn before a timing. A run is never refused for it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

import psutil

OTHERS_CORES = 0.5  # timings are doubted when other processes use more
NAMED_CORES = 0.1  # a process that used fewer is not named
MAX_NAMED = 3
SAMPLE_S = 0.5


class LoadMonitor:
    """Measures how many cores other processes use, from its creation on."""

    def __init__(self) -> None:
        self._started, self._busy, self._own = time.monotonic(), busy_cpu_s(), own_cpu_s()
        self._by_process = cpu_s_by_process()

    def warn(self, device: str) -> None:
        """Print a warning on stderr if the machine is busy, before time is spent on timings that can't be trusted.

        Args:
            device: the device to be timed, as in the configuration.
        """
        time.sleep(max(0.0, SAMPLE_S - (time.monotonic() - self._started)))
        found = [*self._on_cpu(), *(other_gpu_processes(device) if device.startswith("cuda") else [])]
        if found:
            print(f"mlff-exp: this machine is busy: {'; '.join(found)}; timings will suffer", file=sys.stderr)

    def _on_cpu(self) -> list[str]:
        elapsed = time.monotonic() - self._started
        others = (busy_cpu_s() - self._busy - (own_cpu_s() - self._own)) / elapsed
        if others <= OTHERS_CORES:
            return []
        names = busiest_processes(self._by_process, cpu_s_by_process(), elapsed)
        return [f"other processes use {others:.1f} of {psutil.cpu_count()} cores{': ' * bool(names)}{', '.join(names)}"]


def other_gpu_processes(device: str) -> list[str]:
    """Return one line about other processes on a CUDA device, or an empty list; NVML gives none for a MIG instance.

    Args:
        device: ``cuda`` or ``cuda:<number>``.
    """
    import pynvml

    number = int(device.partition(":")[2] or 0)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in visible.split(",")] if visible else []
    try:
        pynvml.nvmlInit()
        name = names[number] if number < len(names) else str(number)
        by_index = pynvml.nvmlDeviceGetHandleByIndex
        handle = by_index(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)
        running = [process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
        used = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
    except pynvml.NVMLError:
        return []
    running = [pid for pid in running if pid != os.getpid()]
    if not running:
        return []
    known = cpu_s_by_process()
    named = [f"{known[pid][0]} ({pid})" if pid in known else str(pid) for pid in running[:MAX_NAMED]]
    return [f"other processes on {device}: {len(running)} ({used}% busy): {', '.join(named)}"]


def busiest_processes(
    before: Mapping[int, tuple[str, float]], now: Mapping[int, tuple[str, float]], elapsed_s: float
) -> list[str]:
    """Return the other processes that used most CPU time, each with the number of cores.

    Args:
        before: result of `cpu_s_by_process`.
        now: a later result.
        elapsed_s: time between the two, s.
    """
    cores = {
        f"{name} ({pid})": (spent - before.get(pid, ("", 0.0))[1]) / max(elapsed_s, 1e-9)
        for pid, (name, spent) in now.items()
        if pid != os.getpid()
    }
    most = sorted((name for name in cores if cores[name] > NAMED_CORES), key=lambda name: -cores[name])
    return [f"{name} {cores[name]:.1f}" for name in most[:MAX_NAMED]]


def busy_cpu_s() -> float:
    """Return CPU time of all processes since the machine started, s, summed over the cores."""
    spent = psutil.cpu_times()
    return float(sum(getattr(spent, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq")))


def cpu_s_by_process() -> dict[int, tuple[str, float]]:
    """Return the name and the CPU time so far (s) of each process that the system shows, by its id."""
    found = {}
    for process in psutil.process_iter(["name", "cpu_times"]):
        spent = process.info["cpu_times"]
        if spent is not None:  # the system does not show it
            found[process.pid] = (process.info["name"] or "", spent.user + spent.system)
    return found


def own_cpu_s() -> float:
    """Return CPU time of this process and of ended child processes, s."""
    spent = psutil.Process().cpu_times()
    return float(spent.user + spent.system + spent.children_user + spent.children_system)
