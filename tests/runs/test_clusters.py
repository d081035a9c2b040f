"""Hydra's launchers with our sweeper: Ray for real, submitit here, and through a SLURM that is a few scripts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.command import INFERENCE, results

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("clusters")]
SWEEP = ["-m", *INFERENCE, "model.checkpoint=student_small", "seed=0,1", "tracking=offline"]

# Replacements for sbatch, srun, sacct and scancel, for submitit: an array of jobs runs one after the other, and not
# before submitit has written what they are.
SBATCH = r"""#!{python}
import os, pathlib, re, subprocess, sys, time
script = pathlib.Path(sys.argv[-1])
text = script.read_text()
pathlib.Path("{directory}", "submitted.sh").write_text(text)
first, last = map(int, re.search(r"--array=(\d+)-(\d+)", text).groups())
print("Submitted batch job 7", flush=True)
if os.fork():
    os._exit(0)
os.setsid()
nothing = os.open(os.devnull, os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(nothing, stream)
time.sleep(2)
for task in range(first, last + 1):
    job = {{"SLURM_JOB_ID": f"7{{task}}", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(task)}}
    node = {{"SLURM_NODEID": "0", "SLURM_LOCALID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_NNODES": "1"}}
    environment = {{**os.environ, **job, **node, "SLURM_JOB_NODELIST": "here"}}
    subprocess.run(["bash", "{directory}/submitted.sh"], env=environment)
"""
SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do if [[ $1 == --output || $1 == --error ]]; then shift; fi; shift; done
exec "$@"
"""
SACCT = """#!/bin/bash
echo "JobID|State|NodeList"
for task in 0 1; do
    state=RUNNING
    if compgen -G "{directory}/outputs/*/*/.submitit/7_$task/*_result.pkl" > /dev/null; then state=COMPLETED; fi
    echo "7_$task|$state|here"
done
"""


def sweep(directory: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlff_exp", *SWEEP, *words],
        cwd=directory, env={**os.environ, **environment}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip


def assert_both_ran(directory: Path, finished: subprocess.CompletedProcess[str]) -> None:
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-4000:]
    assert [(result.status, result.config["seed"]) for result in results(directory)] == [
        ("FINISHED", 0),
        ("FINISHED", 1),
    ]
    (report,) = directory.glob("outputs/*/*/report.md")
    assert report.read_text().count("FINISHED") == 2


def test_submitit_on_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    assert_both_ran(tmp_path, sweep(tmp_path, "hydra/launcher=submitit_local"))


# A force field that takes its job along, as the end of a node does.
LOST = """
import multiprocessing, os, signal
from ase.calculators.lj import LennardJones

class Lost(LennardJones):
    def calculate(self, *arguments):
        os.kill(multiprocessing.parent_process().pid, signal.SIGKILL)
"""


def test_a_job_that_was_lost_has_failed_alone(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    (tmp_path / "lost.py").write_text(LOST)
    words = [word for word in INFERENCE if not word.startswith("engine=")]
    calculators = "model.calculator._target_=lost.Lost,ase.calculators.lj.LennardJones"
    command = [
        "-m",
        *words,
        "tracking=offline",
        "model=ase",
        "trust=[lost]",
        calculators,
        "hydra/launcher=submitit_local",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    finished = subprocess.run(
        [sys.executable, "-m", "mlff_exp", *command],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert finished.returncode == 1, finished.stdout[-2000:] + finished.stderr[-4000:]
    lost, other = results(tmp_path)
    assert lost.failure is not None
    assert (lost.status, lost.failure.kind, other.status) == ("FAILED", "UncompletedJobError", "FINISHED")
    assert "has not produced any output" in lost.failure.message
    (report,) = tmp_path.glob("outputs/*/*/report.md")
    assert "| FAILED |" in report.read_text()


def test_slurm_gets_one_gpu_for_each_run(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    programs = tmp_path / "bin"
    programs.mkdir()
    batch = SBATCH.format(python=sys.executable, directory=tmp_path)
    for name, text in {
        "sbatch": batch,
        "srun": SRUN,
        "sacct": SACCT.format(directory=tmp_path),
        "scancel": "#!/bin/bash\n",
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    words = ["hydra/launcher=slurm_gpu", "hydra.launcher.partition=gpu"]
    finished = sweep(tmp_path, *words, PATH=f"{programs}:{os.environ['PATH']}")
    assert_both_ran(tmp_path, finished)
    script = (tmp_path / "submitted.sh").read_text()
    for line in ("--gpus-per-node=1", "--ntasks-per-node=1", "--partition=gpu", "--array=0-1%2", "--time=60"):
        assert f"#SBATCH {line}" in script, script


def test_ray_gives_each_run_a_gpu_of_its_own(tmp_path: Path) -> None:
    """Two workers on a machine that is said to have two GPUs; the runs themselves stay on the CPU."""
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    words = ["hydra/launcher=ray_gpu", "+hydra.launcher.ray.init.num_gpus=2", "+hydra.launcher.ray.init.num_cpus=2"]
    assert_both_ran(tmp_path, sweep(tmp_path, *words, RAY_USAGE_STATS_ENABLED="0"))
    assert {result.environment["cuda_visible_devices"] for result in results(tmp_path)} == {"0", "1"}
