"""The scripts in `examples/` run, at sizes that take seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMPILES = pytest.mark.xdist_group("compile")
# PyTorch's own, when it compiles; elsewhere pyproject.toml says so.
WARNINGS = ["-W", "error", "-W", "ignore:`torch.jit:DeprecationWarning"]
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
WORDS = {
    # Compiled: ethanol has the shape of benzene, which the documentation's Python compiles as well.
    "ase_md": ["--steps", "20", "--device", "cpu"],
    "batch_inference": ["--batch-size", "6", "--device", "cpu", "--eager", "--fp16"],
    "custom_sweep": [
        "device=cpu",
        "task.min_calls=10",
        "task.min_time_s=0.01",
        "batch_size=1",
        "model.checkpoint=student_small",
        "tracking=offline",
    ],
}
PRINTED = {
    "ase_md": ["engine='compile/", "steps/s", "total energy -", "'n_calls': "],
    "batch_inference": ["6 structures, ", "energy against the teacher: ", "FP16 on a CPU is slow"],
    "custom_sweep": ["student_small       1 "],
}


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(WORDS) == set(PRINTED)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param("ase_md", marks=COMPILES), *(name for name in WORDS if name != "ase_md")]
)
def test_examples_run(name: str, tmp_path: Path) -> None:
    command = [sys.executable, *WARNINGS, str(EXAMPLES / f"{name}.py"), *WORDS[name]]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr
    for words in PRINTED[name]:
        assert words in finished.stdout + finished.stderr
