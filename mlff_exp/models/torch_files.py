"""Read files of `torch.save` without unpickling objects; damage and foreign content are one line of text."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from mlff_exp.common import refuse_irregular

LONGEST_REASON = 200
# What zipfile, torch.load and its restricted unpickler raise for a file that is cut or made up.
DAMAGED = (
    RuntimeError, EOFError, OSError, KeyError, IndexError, AttributeError, TypeError, AssertionError, ValueError,
    zipfile.BadZipFile,
)  # fmt: skip


def read_torch_file(path: Path) -> Any:
    """Read tensors and plain values from a file that `torch.save` wrote, onto the CPU.

    Raises:
        ValueError: the file is damaged, unpacks to more than its own size, or holds other objects. The message says
            which, in one line.
    """
    try:
        refuse_irregular(path, None)
        _check_members(path)
        # An open file, because torch.load believes in suffixes.
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # The message of torch advises to load the file without this protection.
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"the object {named[1]}" if named else "objects that are no tensors"
        raise ValueError(f"refused, because it holds more than weights: {what}") from error
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise ValueError(f"corrupt or truncated PyTorch file: {reason}") from error


def _check_members(path: Path) -> None:
    with zipfile.ZipFile(path) as members:  # as torch writes it, nothing in it is compressed
        if sum(member.file_size for member in members.infolist()) > path.stat().st_size:
            raise ValueError("it unpacks to more than its own size")
        if damaged := members.testzip():  # torch.load does not compare checksums
            raise ValueError(f"the checksum of {damaged} is wrong")
