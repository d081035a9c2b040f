"""Short hashes of a structure and of an ASE calculator's arguments, by which equal runs are recognised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms

from mlff_exp.common import expand_home

DIGITS = 16
PART_BYTES = 2**20


def structure_identity(atoms: Atoms) -> str:
    """Return the formula and a hash of everything that a force field or dynamics may depend on.

    The hash covers elements, positions, cell, periodic directions, masses, initial charges and magnetic moments, and
    numbers and words in ``info``, such as charge and spin.
    """
    found = hashlib.sha256()
    for values in (
        atoms.numbers.astype(np.int64),
        atoms.positions.astype(np.float64),
        np.asarray(atoms.cell, dtype=np.float64),
        atoms.pbc,
        atoms.get_masses().astype(np.float64),
        atoms.get_initial_charges().astype(np.float64),
        atoms.get_initial_magnetic_moments().astype(np.float64),
    ):
        found.update(str(values.shape).encode() + np.ascontiguousarray(values).tobytes())
    plain = (bool, int, float, str, np.bool_, np.integer, np.floating)
    info = {str(key): str(value) for key, value in atoms.info.items() if isinstance(value, plain)}
    found.update(json.dumps(info, sort_keys=True).encode())
    return f"{atoms.get_chemical_formula()} {found.hexdigest()[:DIGITS]}"


def calculator_identity(calculator: Mapping[str, Any]) -> str:
    """Return the target and a hash of all arguments of a calculator.

    Where an argument names a file, the hash covers the content of the file.

    Args:
        calculator: ``_target_`` and the arguments.
    """
    found = hashlib.sha256(json.dumps(calculator, sort_keys=True, default=str).encode())
    for text in _texts(calculator):
        try:
            path = expand_home(text)
            if path.is_file() and path.stat().st_size:  # files in /proc have no size, and may block for ever
                with path.open("rb") as file:
                    while part := file.read(PART_BYTES):
                        found.update(part)
        except (OSError, ValueError, RuntimeError):  # a text that can't be a path
            continue
    return f"{calculator['_target_']} {found.hexdigest()[:DIGITS]}"


def _texts(value: Any) -> list[str]:
    """Return all texts in nested values, in order of their keys."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for key in sorted(value, key=str) for text in _texts(value[key])]
    if isinstance(value, list | tuple):
        return [text for part in value for text in _texts(part)]
    return []
