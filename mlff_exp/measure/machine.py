"""Describe where a run took place (versions, machine, device, state of the code) and what disturbed its timings."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from mlff_exp.common import mask_secrets
from mlff_exp.measure.machine_load import OTHERS_CORES, busiest_processes, busy_cpu_s, cpu_s_by_process, own_cpu_s

PACKAGES = ("mlff-exp", "torch", "triton", "numpy", "scipy", "ase", "hydra-core", "mlflow", "nvidia-ml-py")
CLOCK_SPREAD = 0.1
# Bits of NVML's clock event reasons that are faults. The other bits mean that the GPU is idle or at a chosen limit.
THROTTLED = {0x08: "hardware slowdown", 0x20: "too hot", 0x40: "hardware too hot", 0x80: "power brake"}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return facts about the machine and the code, for reports and for the comparison of runs."""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hostname": platform.node(),
        "cpu": _cpu_model(),
        "cpu_count": psutil.cpu_count(),
        "cpu_governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "packages": {name: _version(name) for name in PACKAGES},
        **_git(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["gpu"] = properties.name
        facts["gpu_memory_mib"] = properties.total_memory // 2**20
        facts["cuda"] = torch.version.cuda
        facts["driver"] = _driver()
    return facts


class DisturbanceMonitor:
    """Samples the state of the machine during a timing, and reports what disturbed it since the first sample.

    Args:
        device: the device that is timed.
    """

    def __init__(self, device: torch.device) -> None:
        self._gpu = _handle(device)
        self._device = device
        self._samples: list[dict[str, Any]] = []
        self._started: float | None = None

    def sample(self) -> None:
        """Take one sample."""
        if self._started is None:
            self._started, self._busy, self._own = time.monotonic(), busy_cpu_s(), own_cpu_s()
            self._by_process = cpu_s_by_process()
        state = None if self._gpu is None else _gpu_state(self._gpu)
        if state is not None:
            self._samples.append(state)

    def summary(self) -> dict[str, Any]:
        """Return the samples of the GPU, and how many cores other processes used."""
        return {"gpu_samples": self._samples, "cores_used_by_others": self._cores_used_by_others()}

    def faults(self) -> list[str]:
        """Return reasons not to trust the timings; empty if there are none."""
        found = []
        others = self._cores_used_by_others()
        if others is not None and others > OTHERS_CORES:
            found.append(f"other processes used {others:.1f} cores{self._busiest()}")
        if self._device.type == "cuda" and not self._samples:
            found.append("the state of the GPU could not be read")
        if self._samples:
            clocks = [sample["sm_clock_mhz"] for sample in self._samples]
            if max(clocks) > (1 + CLOCK_SPREAD) * min(clocks):
                found.append(f"the GPU's clock went from {min(clocks)} to {max(clocks)} MHz")
            bits = {bit for sample in self._samples for bit in THROTTLED if sample["throttle_reasons"] & bit}
            found += [f"the GPU was slowed down: {THROTTLED[bit]}" for bit in sorted(bits)]
            processes = max(sample["processes"] for sample in self._samples)
            if processes > 1:
                found.append(f"{processes - 1} other processes used the GPU")
        return found

    def _cores_used_by_others(self) -> float | None:
        if self._started is None:
            return None
        elapsed = time.monotonic() - self._started
        return max(0.0, (busy_cpu_s() - self._busy - (own_cpu_s() - self._own)) / max(elapsed, 1e-9))

    def _busiest(self) -> str:
        """Name the processes that used most CPU time, where the system shows them."""
        assert self._started is not None, "there is a sample"
        names = busiest_processes(self._by_process, cpu_s_by_process(), time.monotonic() - self._started)
        return f": {', '.join(names)}" if names else ""


def _handle(device: torch.device) -> Any:
    """NVML's handle of a CUDA device, or None."""
    if device.type != "cuda":
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        # By UUID: CUDA_VISIBLE_DEVICES renumbers the devices of torch but not those of NVML.
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except pynvml.NVMLError:
        return None


def _gpu_state(handle: Any) -> dict[str, Any] | None:
    """Return clocks, power, temperature and processes of a GPU; None where NVML can't read them (a MIG instance)."""
    import pynvml

    try:
        return {
            "sm_clock_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            "memory_clock_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
            "power_w": pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "temperature_c": pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
            "throttle_reasons": pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
            "processes": len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle)),
        }
    except pynvml.NVMLError:
        return None


def _driver() -> str | None:
    import pynvml

    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read(path: str) -> str | None:
    """Read a Linux file for a fact that psutil does not give; None where it can't be read."""
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    return None


def _cpu_model() -> str:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git() -> dict[str, str]:
    """Return commit and uncommitted changes of the checkout that the code runs from; nothing for an installed wheel.

    The changes are those of tracked files, and the names of new files among code and configuration. Other files in a
    checkout may be private structures of the user.
    """
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / ".git").exists():
        return {}
    asked = (
        "rev-parse HEAD",
        "diff HEAD",
        "ls-files --others --exclude-standard mlff_exp hydra_plugins benchmarks conf",
    )
    try:
        commit, diff, new = (
            subprocess.run(
                ["git", *words.split()], cwd=root, capture_output=True, encoding="utf-8", errors="replace", check=True
            ).stdout
            for words in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    new = "".join(f"new file: {name}\n" for name in new.splitlines())
    return {"git_commit": commit.strip(), "git_diff": mask_secrets(diff + new)}
