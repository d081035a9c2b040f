"""The scripts in `examples/`, as somebody runs them, at sizes that take seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
WORDS = {
    "ase_md": ["--steps", "20", "--device", "cpu", "--eager"],
    "batch_inference": ["--batch-size", "6", "--device", "cpu", "--eager"],
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
    "ase_md": ["steps/s", "total energy -", "'n_calls': "],
    "batch_inference": ["6 structures, ", "energy against the teacher: "],
    "custom_sweep": ["student_small       1 "],
}


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(WORDS) == set(PRINTED)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORDS)
def test_examples_run(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *WORDS[name]]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr
    for words in PRINTED[name]:
        assert words in finished.stdout
