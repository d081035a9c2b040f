"""Printing to what can't be written to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PRINTS = """
from mlff_exp.cli.boundary import command_boundary

@command_boundary("mlff-exp")
def main():
    for _ in range(5):
        print("x" * 5000)

main()
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_standard_output_is_one_line_and_an_exit_code() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([sys.executable, "-c", PRINTS], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.stderr == "mlff-exp: No space left on device: standard output; what had finished is kept\n"
    assert ended.returncode == 1
