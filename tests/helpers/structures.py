"""Structures that several tests use."""

from __future__ import annotations

from pathlib import Path

from ase import Atoms
from ase.io import write

CASES = Path(__file__).resolve().parent.parent / "data" / "structures"
WATER = "3\n{}\nO 0 0 0\nH 0 0 0.96\nH 0 0.93 -0.24\n"


def three_frames(path: Path) -> Path:
    write(path, [Atoms("CO", [(0, 0, 0), (0, 0, distance)]) for distance in (1.0, 1.1, 1.2)])
    return path
