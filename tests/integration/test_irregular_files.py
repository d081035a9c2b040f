"""What is no regular file is refused where a file is read; were it opened, the tests would not end."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mlff_exp.config.errors import ConfigError
from mlff_exp.distill.labelling import RECIPE_FILE, _check_recipe
from mlff_exp.distill.sampling import Sampling
from mlff_exp.report.publish import _kernels
from mlff_exp.results.progress import PROGRESS_FILE, Progress
from mlff_exp.results.result import ResultError
from mlff_exp.structures.reading.frames import StructureError, read_frames
from mlff_exp.tracking.files import read_own
from mlff_exp.tracking.markers import OPENED_FILE, UPLOADED_FILE, read_opened, uploaded_ids


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as made:
        made.bind(path.name)  # a path may have 107 characters


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


READERS: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "frames.xyz": (lambda path: read_frames(path, 0), StructureError),
    RECIPE_FILE: (lambda path: _check_recipe([], Sampling(), path.parent), ConfigError),
    "kernels.csv": (_kernels, ResultError),
    PROGRESS_FILE: (lambda path: Progress(path.parent).read(0), ResultError),
    "report.md": (lambda path: read_own(path.parent, path.name), ResultError),
}


@pytest.mark.parametrize("make", [_pipe, _socket, _device, Path.mkdir], ids=["pipe", "socket", "device", "directory"])
def test_a_file_that_is_none_is_refused(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, (read, error) in READERS.items():
        make(tmp_path / name)
        with pytest.raises(error, match=r"not a regular file|is a link"):
            read(tmp_path / name)
    for name in (OPENED_FILE, UPLOADED_FILE):
        make(tmp_path / name)
    assert read_opened(tmp_path) is None
    assert uploaded_ids(tmp_path) == []
