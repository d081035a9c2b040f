"""Messages of distilling about broken files of an earlier run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlff_exp.config import ConfigError
from mlff_exp.structures import DatasetError
from mlff_exp.tasks import distill


def test_a_broken_dataset_of_an_earlier_run_is_a_wrong_configuration(tmp_path: Path) -> None:
    (tmp_path / "validation.npz").write_text("no arrays")
    config: Any = SimpleNamespace(task=SimpleNamespace(directory=str(tmp_path), budget_s=1.0), device="cpu", seed=0)
    with pytest.raises(ConfigError, match=r"task\.directory=.*validation\.npz is not a dataset"):
        distill.run(config, tmp_path)


def test_a_broken_count_of_what_was_left_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "round-0.left_out.json").write_text("[1]")
    with pytest.raises(DatasetError, match=r"round-0\.left_out\.json is broken"):
        distill._left_out(tmp_path)
