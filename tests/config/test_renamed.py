"""Old words of the configuration work under their new name, with a warning that names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.types import RunMode
from omegaconf import DictConfig

from mlff_exp.cli.guard import GuardedLoader
from mlff_exp.config import renamed
from mlff_exp.config.renamed import rename_recorded, rename_word
from tests.helpers.here import CONF


@pytest.fixture(autouse=True)
def nothing_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renamed, "_warned", set())


def composed(directory: Path, *words: str) -> DictConfig:
    search_path = create_config_search_path(str(CONF))
    search_path.prepend("test", f"file://{directory}", SearchPathQuery(provider="schema"))
    return GuardedLoader(search_path, words).load_configuration("config", list(words), run_mode=RunMode.RUN)


@pytest.mark.parametrize(
    ("word", "new"),
    [
        ("task.beside=[eager,fused]", "task.baselines=[eager,fused]"),
        ("+task.beside=[eager]", "+task.baselines=[eager]"),
        ("~task.beside", "~task.baselines"),
    ],
)
def test_an_old_key_on_the_command_line_is_replaced(word: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rename_word(word) == new
    assert rename_word(word) == new
    assert capsys.readouterr().err.count("task.beside has a new name, task.baselines") == 1


@pytest.mark.parametrize("word", ["task.baselines=[eager]", "task.besides=1", "batch_size=1", "gate=plan"])
def test_other_words_stay(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rename_word(word) == word
    assert not capsys.readouterr().err


def test_an_old_option_is_composed_as_the_new_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert composed(tmp_path, "gate=seed").gate == composed(tmp_path, "gate=plan").gate
    assert capsys.readouterr().err.count("gate=seed has a new name, gate=plan") == 1


def test_old_words_in_a_file_are_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /gate: seed\ntask:\n  beside: [eager]\n"
    )
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "long.yaml").write_text(
        "defaults:\n  - /schema/task/inference@_here_\n  - _self_\nbeside: [fused]\n"
    )
    experiment = composed(tmp_path, "experiment=mine")
    assert (experiment.gate.name, experiment.task.baselines) == ("plan", ["eager"])
    assert composed(tmp_path, "task=long").task.baselines == ["fused"]
    said = capsys.readouterr().err
    assert "gate=seed has a new name" in said
    assert "task.beside has a new name" in said


def test_a_gate_of_ones_own_with_an_old_name_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gate").mkdir()
    text = "defaults:\n  - /schema/gate/gate@_here_\n  - _self_\nname: mine\ncriteria:\n  momentum_error: {max: 1}\n"
    (tmp_path / "gate" / "seed.yaml").write_text(text)
    assert composed(tmp_path, "gate=seed").gate.name == "mine"
    assert not capsys.readouterr().err


def test_a_recorded_configuration_gets_the_new_names() -> None:
    recorded = {
        "task": {"name": "inference", "beside": ["eager"]},
        "gate": {"name": "seed"},
        "sweep": {"varied": {"task.beside": "[eager]", "gate.name": "seed", "seed": "1"}},
        "seed": 1,
    }
    assert rename_recorded(recorded) == {
        "task": {"name": "inference", "baselines": ["eager"]},
        "gate": {"name": "plan"},
        "sweep": {"varied": {"task.baselines": "[eager]", "gate.name": "plan", "seed": "1"}},
        "seed": 1,
    }
    assert rename_recorded({"task": 1, "gate": [], "sweep": {"varied": None}}) == {
        "task": 1, "gate": [], "sweep": {"varied": None},
    }  # fmt: skip
