"""Files of JSON that are none, or that would be waited for without end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlff_exp.common.typed_json import parse_json, read_json


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
