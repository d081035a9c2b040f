"""Read arrays from npz files of unknown origin.

Names, types and shapes are checked before any memory is allocated. No array is ever unpickled.
"""

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

from mlff_exp.common import refuse_irregular

MAX_BYTES = 4 * 2**30  # sum over all arrays of a file
LONGEST_HEADER = 10_000  # bytes; NumPy parses a header as Python literals
# NumPy and zipfile raise these errors for a file that is truncated, encrypted or of another kind.
UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Expected:
    """The type and shape that an array of a file must have.

    Attributes:
        dtype: type of the numbers, such as "int32"; "str" for texts of any length.
        shape: a number or a letter for each axis. A letter is the same number for all arrays of a file.
        is_finite: whether NaN and infinity are refused.
    """

    dtype: str
    shape: tuple[int | str, ...]
    is_finite: bool = True


def read_arrays(
    path: Path, expected: Mapping[str, Expected], *, allow_others: bool = False
) -> dict[str, npt.NDArray[Any]]:
    """Read arrays of an npz file.

    Args:
        path: the file.
        expected: type and shape of each array by name. The file must hold these arrays.
        allow_others: whether the file may hold other arrays, which are not read.

    Returns:
        The arrays by name.

    Raises:
        ValueError: the file is missing, damaged or no npz file, or an array is not as expected. The message names the
            array.
    """
    try:
        refuse_irregular(path, None)
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is not a complete .npz file")
            with zipfile.ZipFile(file) as members:
                return _read(members, expected, allow_others)
    except UNREADABLE as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(reason) from error


def array_names(path: Path) -> set[str]:
    """Return the names of the arrays in an npz file.

    Raises:
        ValueError: the file is missing, damaged or no npz file.
    """
    try:
        refuse_irregular(path, None)
        with zipfile.ZipFile(path) as members:
            return {name.removesuffix(".npy") for name in members.namelist()}
    except UNREADABLE as error:
        raise ValueError(f"it is not a complete .npz file: {error}") from error


def _read(
    members: zipfile.ZipFile, expected: Mapping[str, Expected], allow_others: bool
) -> dict[str, npt.NDArray[Any]]:
    listed = [(member, member.filename.removesuffix(".npy")) for member in members.infolist()]
    listed = [(member, name) for member, name in listed if name in expected or not allow_others]
    found = [name for _, name in listed]
    if sorted(found) != sorted(expected):
        missing, other = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        reasons = [f"it has no array {', '.join(missing)}"] if missing else []
        reasons += [f"it has unknown arrays: {', '.join(other[:5])}"] if other else []
        raise ValueError("; ".join(reasons) or "it has an array twice")
    size = sum(member.file_size for member, _ in listed)
    if size > MAX_BYTES:
        raise ValueError(f"its arrays take {size:,} bytes; at most {MAX_BYTES:,} are read")
    sizes: dict[str, int] = {}
    arrays = {}
    for member, name in listed:
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
    """Return the shape in the header of an array, after checking type, number of axes and size of the data."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=LONGEST_HEADER)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file, max_header_size=LONGEST_HEADER)
    else:
        raise ValueError(f"{name} has version {version} of the format; legal versions are (1, 0) and (2, 0)")
    right = dtype.kind == "U" if expected.dtype == "str" else dtype == np.dtype(expected.dtype)
    if not right or len(shape) != len(expected.shape):
        wanted = f"{expected.dtype} with {len(expected.shape)} dimensions"
        raise ValueError(f"{name} is {dtype} with {len(shape)} dimensions, not {wanted}")
    needed, available = math.prod(shape) * dtype.itemsize, file_size - file.tell()
    if min(shape, default=0) < 0 or needed != available:
        raise ValueError(f"{name} needs {needed:,} bytes for its shape {shape}, but the file has {available:,}")
    return tuple(shape)
