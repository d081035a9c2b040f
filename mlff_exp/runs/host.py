"""What a sweep needs of Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig


class SweepHost(Protocol):
    """Composes configurations from words and launches jobs.

    Attributes:
        launcher: of Hydra.
        params: overrides of every job, by key.
        roots: directories below which runs leave their results.
    """

    launcher: Any
    params: dict[str, str]
    roots: list[Path]

    @property
    def here(self) -> bool:
        """Whether jobs run in turn on this machine."""

    @property
    def directory(self) -> Path:
        """The directory of the sweep."""

    @property
    def directory_is_given(self) -> bool:
        """Whether the command line names the directory of the sweep."""

    def place(self, directory: Path) -> None:
        """Choose another directory for the sweep."""

    def settings(self) -> Any:
        """The whole configuration as plain values."""

    def parse(self, words: Sequence[str]) -> list[Any]:
        """Words of the command line as Hydra's overrides."""

    def products(self, words: list[Any], planned: int = 0) -> list[list[str]]:
        """The overrides of each job that words with several values come to."""

    def compose(self, overrides: list[str]) -> DictConfig:
        """The configuration of one job, without Hydra's own part."""

    def vouch(self, sweep_id: str | None, gate_decision: str, where: str) -> None:
        """Let the next jobs say what the sweep alone knows."""
