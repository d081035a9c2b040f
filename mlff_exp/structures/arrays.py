"""Arrays from npz files that somebody else may have written: names, types and shapes are looked at before memory is
taken, and nothing is ever unpickled."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

MAX_BYTES = 4 * 2**30  # of all arrays of a file together
LONGEST_HEADER = 10_000  # bytes; NumPy parses it as Python's literals
# What NumPy and zipfile raise for a file that is truncated, encrypted or foreign.
UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Expected:
    """What an array has to be.

    Attributes:
        dtype: of its numbers, as "int32"; "str" for texts of any length.
        shape: numbers, or letters that stand for the same number wherever they occur in a file.
        is_finite: whether NaN and infinity are refused.
    """

    dtype: str
    shape: tuple[int | str, ...]
    is_finite: bool = True


def read_arrays(path: Path, expected: Mapping[str, Expected]) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an npz file, which has to hold those expected and no others.

    Raises:
        ValueError: the file is missing, damaged or foreign, or an array is not what is expected, naming it.
    """
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is no whole .npz file")
            with zipfile.ZipFile(file) as members:
                return _read(members, expected)
    except UNREADABLE as error:
        told = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(told) from error


def array_names(path: Path) -> set[str]:
    """Of the arrays in an npz file.

    Raises:
        ValueError: it is none.
    """
    try:
        with zipfile.ZipFile(path) as members:
            return {name.removesuffix(".npy") for name in members.namelist()}
    except UNREADABLE as error:
        raise ValueError(f"it is no whole .npz file: {error}") from error


def _read(members: zipfile.ZipFile, expected: Mapping[str, Expected]) -> dict[str, npt.NDArray[Any]]:
    found = [member.filename.removesuffix(".npy") for member in members.infolist()]
    if sorted(found) != sorted(expected):
        missing, other = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        told = [f"without {', '.join(missing)}"] if missing else []
        told += [f"with {', '.join(other[:5])}"] if other else []
        raise ValueError(f"its arrays are {' and '.join(told) or 'there twice'}")
    size = sum(member.file_size for member in members.infolist())
    if size > MAX_BYTES:
        raise ValueError(f"its arrays take {size:,} bytes, more than {MAX_BYTES:,}")
    sizes: dict[str, int] = {}
    arrays = {}
    for member, name in zip(members.infolist(), found, strict=True):
        with members.open(member) as file:
            shape = _checked(name, file, member.file_size, expected[name])
        for letter, length in zip(expected[name].shape, shape, strict=True):
            if length != (letter if isinstance(letter, int) else sizes.setdefault(letter, length)):
                raise ValueError(f"{name} has the shape {shape}, which does not fit the other arrays")
        with members.open(member) as file:
            array = np.lib.format.read_array(file, allow_pickle=False, max_header_size=LONGEST_HEADER)
        if expected[name].is_finite and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinite numbers")
        arrays[name] = array
    return arrays


def _checked(name: str, file: IO[bytes], file_size: int, expected: Expected) -> tuple[int, ...]:
    """The shape that an array's header promises, if what follows is as long as that."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=LONGEST_HEADER)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file, max_header_size=LONGEST_HEADER)
    else:
        raise ValueError(f"{name} has the version {version} of the format, known are (1, 0) and (2, 0)")
    right = dtype.kind == "U" if expected.dtype == "str" else dtype == np.dtype(expected.dtype)
    if not right or len(shape) != len(expected.shape):
        wanted = f"{expected.dtype} with {len(expected.shape)} dimensions"
        raise ValueError(f"{name} is {dtype} with {len(shape)} dimensions, not {wanted}")
    promised, there = math.prod(shape) * dtype.itemsize, file_size - file.tell()
    if min(shape, default=0) < 0 or promised != there:
        raise ValueError(f"{name} promises {promised:,} bytes by its shape {shape}, and there are {there:,}")
    return tuple(shape)
