"""The checkpoints that ship with the package."""

from __future__ import annotations

from pathlib import Path

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"


def shipped_checkpoints() -> tuple[str, ...]:
    """Return the names of the checkpoints inside the package."""
    return tuple(sorted(path.stem for path in CHECKPOINTS.glob("*.safetensors")))
