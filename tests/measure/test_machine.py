"""Does a run notice what disturbs its timings?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mlff_exp.measure import machine
from mlff_exp.measure.machine import DisturbanceMonitor, _git, describe_machine
from mlff_exp.measure.machine_load import busy_cpu_s, cpu_s_by_process, own_cpu_s

CPU = torch.device("cpu")
QUIET: dict[str, object] = {
    "sm_clock_mhz": 1980, "memory_clock_mhz": 2619, "power_w": 300.0, "temperature_c": 50, "throttle_reasons": 0,
    "processes": 1,
}  # fmt: skip


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_the_machine_is_described() -> None:
    facts = describe_machine(CPU)
    assert facts["packages"]["torch"] == torch.__version__
    assert len(facts["git_commit"]) == 40
    assert facts["cpu"]
    assert "gpu" not in facts


def test_changes_and_new_files_are_recorded_but_ignored_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True)

    (tmp_path / "mlff_exp").mkdir()
    (tmp_path / "known.py").write_text("a = 1\n")
    (tmp_path / ".gitignore").write_text("outputs\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "mlff_exp" / "measure" / "machine.py"))
    (tmp_path / "outputs").write_text("of a run")
    assert _git()["git_diff"] == ""
    (tmp_path / "mine.xyz").write_text("of one's own")
    assert _git()["git_diff"] == ""
    (tmp_path / "mlff_exp" / "new.py").write_text("b = 2\n")
    assert _git()["git_diff"] == "new file: mlff_exp/new.py\n"
    (tmp_path / "known.py").write_text("a = 3\n")
    assert "+a = 3" in _git()["git_diff"]


def test_own_work_is_no_disturbance_and_that_of_others_is() -> None:
    watch = DisturbanceMonitor(CPU)
    assert watch.summary()["cores_used_by_others"] is None
    watch.sample()
    spin(0.5)
    others = watch.summary()["cores_used_by_others"]
    watch = DisturbanceMonitor(CPU)
    watch.sample()
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        spin(0.5)
        assert watch.summary()["cores_used_by_others"] > min(others + 0.3, 0.6)
        (fault,) = watch.faults()
        assert f"({busy.pid})" in fault
    finally:
        busy.kill()
        busy.wait()


def test_processes_are_counted_by_name_and_their_seconds_go_up() -> None:
    busy, own, before = busy_cpu_s(), own_cpu_s(), cpu_s_by_process()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    assert 0.2 < own_cpu_s() - own < 1
    assert busy_cpu_s() - busy > 0.2
    name, spent = cpu_s_by_process()[os.getpid()]
    assert name.startswith(("python", "pytest"))
    assert spent - before[os.getpid()][1] > 0.2


def test_a_quiet_gpu_is_trusted() -> None:
    assert gpu_faults(QUIET, QUIET) == []


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        ({"sm_clock_mhz": 1200}, "the GPU's clock went from 1200 to 1980 MHz"),
        ({"throttle_reasons": 0x40 | 0x04}, "the GPU was slowed down: hardware too hot"),
        ({"processes": 3}, "2 other processes used the GPU"),
    ],
)
def test_a_disturbed_gpu_is_not_trusted(seen: dict[str, object], fault: str) -> None:
    assert gpu_faults(QUIET, {**QUIET, **seen}) == [fault]


def test_a_gpu_that_tells_nothing_is_not_trusted() -> None:
    assert gpu_faults() == ["the state of the GPU could not be read"]


def gpu_faults(*samples: dict[str, object]) -> list[str]:
    watch = DisturbanceMonitor(CPU)
    watch._device, watch._samples = torch.device("cuda"), list(samples)
    return watch.faults()


@pytest.mark.gpu
def test_the_gpu_is_sampled() -> None:
    watch = DisturbanceMonitor(torch.device("cuda"))
    watch.sample()
    (sample,) = watch.summary()["gpu_samples"]
    assert set(sample) == set(QUIET)
    assert sample["sm_clock_mhz"] > 0
    facts = describe_machine(torch.device("cuda"))
    assert facts["driver"]
