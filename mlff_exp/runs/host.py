"""The interface between a sweep and Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig


class SweepHost(Protocol):
    """Composes configurations from words, and launches jobs.

    Attributes:
        launcher: Hydra's launcher.
        params: overrides of every job, by key.
        roots: directories below which runs leave their results.
    """

    launcher: Any
    params: dict[str, str]
    roots: list[Path]

    @property
    def here(self) -> bool:
        """Whether jobs run one after the other on this machine."""

    @property
    def directory(self) -> Path:
        """The directory of the sweep."""

    @property
    def directory_is_given(self) -> bool:
        """Whether the command line names the directory of the sweep."""

    def place(self, directory: Path) -> None:
        """Choose another directory for the sweep."""

    def settings(self) -> Any:
        """Return the complete configuration as plain values."""

    def parse(self, words: Sequence[str]) -> list[Any]:
        """Parse words of the command line into Hydra's overrides."""

    def products(self, words: list[Any], planned: int = 0) -> list[list[str]]:
        """Return the overrides of each job, for words with several values."""

    def compose(self, overrides: list[str]) -> DictConfig:
        """Compose the configuration of one job, without Hydra's own part."""

    def allow_sweep_words(self, sweep_id: str | None, gate_decision: str, where: str) -> None:
        """Allow the next jobs to set the words that only a sweep may set."""
