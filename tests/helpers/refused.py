"""The command in this process, where it refuses its words: nothing starts that would need another."""

from __future__ import annotations

import sys

import pytest

from mlff_exp.cli.app import main


def said_against(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """The one line with which a command is refused."""
    monkeypatch.setattr(sys, "argv", ["mlff-exp", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2, said.err
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("mlff-exp: ")
    return line
