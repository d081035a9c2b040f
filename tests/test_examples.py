"""The scripts in `examples/` run, at sizes that take seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.here import run_here

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


@pytest.mark.slow
def test_a_model_of_ones_own_is_trained_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "schnet.safetensors"
    command = [sys.executable, *WARNINGS, str(EXAMPLES / "own_model" / "train.py"), "--minutes", "0.03"]
    finished = subprocess.run([*command, "--to", str(weights)], capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr
    assert "molecules left out: energy " in finished.stdout
    monkeypatch.syspath_prepend(EXAMPLES)
    model = ["model=torch", "model.factory=own_model.schnet:make", "trust=[own_model]"]
    words = [
        *model,
        f"+model.arguments.weights={weights}",
        "task=inference",
        "system=water",
        "device=cpu",
        "engine=eager",
    ]
    result = run_here(tmp_path, *words, "task.min_calls=5", "task.min_time_s=0.01")
    assert result.metrics["force_relative_rmse_vs_fp64_percent"] < 0.01
