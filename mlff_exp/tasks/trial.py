"""Evaluate a structure with an ASE calculator before the work, because many calculators check no argument."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from mlff_exp.common import DISK_ERRORS
from mlff_exp.engines import is_out_of_memory

AWAY_ANG = 0.02  # rms displacement: no force vanishes by symmetry, and nothing is in a cache when the work begins
WEAKEST_EV_PER_ANG = 1e-9
# What calculators raise for arguments and structures that they can't use, or without the program that they start.
FAILED = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, OSError)


def try_out(calculator: BaseCalculator, atoms: Atoms) -> None:
    """Refuse a calculator that is no force field for a structure.

    Args:
        calculator: an ASE calculator with forces.
        atoms: the structure; unchanged.

    Raises:
        ValueError: the calculator fails, or no atom feels a force, or a force is infinite or NaN.
        OSError: the disk is full.
    """
    name, displaced = type(calculator).__name__, atoms.copy()
    displaced.positions += np.random.default_rng(0).normal(scale=AWAY_ANG, size=displaced.positions.shape)
    displaced.calc = calculator
    try:
        with np.errstate(all="ignore"):  # what is no number is refused below
            forces = np.asarray(displaced.get_forces(), float)
    except FAILED as error:
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno in DISK_ERRORS):
            raise
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{name} can't evaluate it with these arguments: {told}") from error
    if forces.shape != displaced.positions.shape or not np.isfinite(forces).all():
        raise ValueError(f"{name} is no force field with these arguments: a force is missing, infinite or NaN")
    if len(atoms) > 1 and np.abs(forces).max() < WEAKEST_EV_PER_ANG:
        raise ValueError(f"{name} is no force field with these arguments: no atom feels a force")
