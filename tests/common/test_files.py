"""An atomically written file is complete, or unchanged."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mlff_exp.common.files import atomic_file, atomic_write


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
