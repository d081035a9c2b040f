"""Files of JSON that are none, or that would be waited for without end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlff_exp.common.typed_json import parse_json, read_json, typed_value


def test_an_empty_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="it is not a regular file"):
        read_json(tmp_path / "fifo")
    (tmp_path / "made_up").touch()  # a file of /proc has no size either
    with pytest.raises(ValueError, match="it is empty"):
        read_json(tmp_path / "made_up")


def test_a_key_that_stands_twice_is_refused() -> None:
    assert parse_json('{"a": {"b": 1}, "c": {"b": 2}}') == {"a": {"b": 1}, "c": {"b": 2}}
    with pytest.raises(ValueError, match="it has the key 'b' twice"):
        parse_json('{"a": {"b": 1, "c": 2, "b": 1}}')


def test_half_a_character_is_refused() -> None:
    for text in (r'{"a": ["x\ud800"]}', r'{"\udfff": 1}'):
        with pytest.raises(ValueError, match="half a character"):
            parse_json(text)
    assert parse_json(r'["\ud83d\ude00", "\\ud800"]') == ["\U0001f600", r"\ud800"]


def test_a_large_integer_becomes_a_float() -> None:
    assert type(typed_value(float, 10**30)) is float
