"""An atomically written file is complete, or unchanged."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mlff_exp.common.files import atomic_file, atomic_write, expand_home, refuse_irregular
from mlff_exp.common.typed_json import read_json
from mlff_exp.config import ConfigError
from mlff_exp.config.systems import FileSystem
from mlff_exp.config.yaml_bounds import refuse_yaml
from mlff_exp.report.target_files import load_targets
from mlff_exp.results import ResultError
from mlff_exp.structures.arrays import read_arrays
from mlff_exp.tasks.ensemble import load_ensembles


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize(
    "error", [None, OSError(errno.ENOSPC, "No space left on device"), RuntimeError("x"), KeyboardInterrupt()]
)
def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path, before: str | None, error: BaseException | None) -> None:
    path = tmp_path / "state.npz"
    if before is not None:
        path.write_text(before)

    def write() -> None:
        with atomic_file(path) as partial:
            partial.write_text("new")
            assert (path.read_text() if path.exists() else None) == before
            if error is not None:
                raise error

    if error is None:
        write()
    else:
        with pytest.raises(type(error)) as raised:
            write()
        assert getattr(raised.value, "filename", str(path)) == str(path)
    assert (path.read_text() if path.exists() else None) == ("new" if error is None else before)
    assert [file for file in tmp_path.iterdir() if file != path] == []


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/result\.json"):
        atomic_write(tmp_path / "nowhere" / "result.json", "{}")


def test_no_pipe_device_directory_or_large_file_is_read(tmp_path: Path) -> None:
    """Were one opened, the test would not end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path, tmp_path / "link", Path("/dev/zero"), Path("/dev/stdin")):
        if path.exists() and not path.is_file():
            with pytest.raises(ValueError, match="not a regular file"):
                refuse_irregular(path)
    for path in (tmp_path / "empty", Path("/proc/self/environ")):
        with pytest.raises(ValueError, match="empty"):
            refuse_irregular(path)
    with pytest.raises(ValueError, match="5 bytes; at most 4"):
        refuse_irregular(tmp_path / "large", 4)
    refuse_irregular(tmp_path / "large")
    with pytest.raises(ValueError, match="not a regular file"):
        read_json(pipe)
    with pytest.raises(ValueError, match="not a regular file"):
        read_arrays(pipe, {})
    with pytest.raises(ResultError, match="not a regular file"):
        load_ensembles(pipe)
    with pytest.raises(ConfigError, match="not a regular file"):
        refuse_yaml(pipe)
    with pytest.raises(ConfigError, match="nor a file"):
        load_targets([str(pipe)])


def test_a_file_whose_name_begins_with_a_tilde_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "~a.xyz").write_text("3")
    assert expand_home("./~a.xyz").read_text() == "3"
    assert FileSystem(path="./~a.xyz").path == "./~a.xyz"
    assert expand_home("~/a.xyz") == Path("/home/me/a.xyz")
