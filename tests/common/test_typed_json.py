"""Files of JSON that are none, or that would be waited for without end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlff_exp.common.typed_json import read_json


def test_an_empty_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="it is no file"):
        read_json(tmp_path / "fifo")
    (tmp_path / "made_up").touch()  # a file of /proc has no size either
    with pytest.raises(ValueError, match="it is empty"):
        read_json(tmp_path / "made_up")
