"""The command ``mlff-exp check``: its words, its lines and its exit codes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlff_exp.cli.check import check_main
from mlff_exp.testing import PROPERTIES, check
from mlff_exp.testing import properties as measured
from mlff_exp.testing.subject import Subject
from tests.helpers.command import SMALL


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def checked(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command here, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["mlff-exp check", *words])
    try:
        check_main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_line_for_each_property(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    some = ("rotation", "skin")  # all of them take seconds, and tests/testing tries them on small networks
    assert check.__kwdefaults__ is not None
    assert check.__kwdefaults__["properties"] == tuple(PROPERTIES)
    monkeypatch.setitem(check.__kwdefaults__, "properties", some)
    assert checked(monkeypatch, SMALL, "system=water", "device=cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, "holds"] for name in some]


def test_one_that_fails_ends_with_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(subject: Subject) -> list[measured.Violation]:
        return [measured.Violation(0.5, 0.1, "eV", "turned upside down")]

    monkeypatch.setattr("mlff_exp.testing.checking.PROPERTIES", {"up": measured.Property("up", "", wrong)})
    assert check.__kwdefaults__ is not None
    monkeypatch.setitem(check.__kwdefaults__, "properties", ("up",))
    assert checked(monkeypatch, SMALL, "system=water", "device=cpu", "--markdown") == 3
    assert "| `model.checkpoint=student_small` | **no**: 0.5 eV |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=nve"], "'task=nve' has no meaning here: give model=…"),
        (["model=ase"], "model=ase runs as it is"),
        (["model=studnt"], "studnt"),
        (["model=torch", "model.factory=mine:make"], "trust=[mine]"),
        (["system=silicon", "device=cpu"], "was not trained on Si"),
    ],
)
def test_wrong_words_end_with_2(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(monkeypatch, *words) == 2
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told
