"""Charge, spin and magnetic moments of a structure, which most machine-learned force fields know nothing of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

CHARGE_KEYS = ("charge", "total_charge", "net_charge")
# The multiplicity 2S + 1, as the sets of molecules that carry a `spin` write it; 0 stands for "not given".
MULTIPLICITY_KEYS = ("spin", "multiplicity", "spin_multiplicity", "mult")
CHARGE_ARRAYS = ("initial_charges", "charge", "charges")
MOMENT_ARRAYS = ("initial_magmoms", "magmom", "magmoms")
TOLERANCE = 0.05  # charges of single atoms are rounded in files


@dataclass(frozen=True)
class Electrons:
    """What a structure says of its electrons.

    Attributes:
        charge: total, e.
        unpaired: electrons; 0 is a singlet.
        has_moments: whether an atom has a magnetic moment, even if they cancel.
    """

    charge: float
    unpaired: float
    has_moments: bool

    @property
    def is_plain(self) -> bool:
        """Neutral, a singlet, without magnetic moments."""
        return abs(self.charge) < TOLERANCE and abs(self.unpaired) < TOLERANCE and not self.has_moments


def electrons(atoms: Atoms) -> Electrons:
    """What ``info`` and the arrays of a structure say of its electrons; what is not said is neutral and a singlet.

    Raises:
        ValueError: a value that is no number, or two that contradict each other.
    """
    charges = _said(atoms, CHARGE_KEYS)
    multiplicities = {key: value for key, value in _said(atoms, MULTIPLICITY_KEYS).items() if value != 0}
    for key, value in multiplicities.items():
        if value < 1 or value != round(value):
            raise ValueError(f"{key}={value:g} is no multiplicity: 1 is a singlet, 2 a doublet")
    unpaired = {key: value - 1 for key, value in multiplicities.items()}
    atomic = _summed(atoms, CHARGE_ARRAYS)
    moments = _summed(atoms, MOMENT_ARRAYS)
    return Electrons(
        _one("total charge", charges | atomic),
        # Moments may point either way.
        abs(_one("number of unpaired electrons", unpaired | {key: abs(value) for key, value in moments.items()})),
        bool(moments),
    )


def refuse_unknown(atoms: Atoms) -> None:
    """Refuse a structure that a model without charge and spin would take for a neutral singlet.

    Raises:
        ValueError: a total charge, unpaired electrons or magnetic moments, saying which.
    """
    found = electrons(atoms)
    if found.is_plain:
        return
    said = [f"a total charge of {found.charge:+g}"] if abs(found.charge) >= TOLERANCE else []
    if abs(found.unpaired) >= TOLERANCE:
        said.append(f"{found.unpaired:g} unpaired electrons")
    elif found.has_moments:
        said.append("magnetic moments")
    raise ValueError(
        f"{atoms.get_chemical_formula()} has {' and '.join(said)}, and the model knows neither charge nor spin: "
        "it would give the energy of the neutral singlet"
    )


def set_initial(atoms: Atoms) -> None:
    """Give the atoms initial charges and moments, in place, where only ``info`` tells of charge and spin.

    ASE's calculators read those of the atoms, TBLite among them, and only their sum; they are spread evenly.

    Raises:
        ValueError: as `electrons`.
    """
    found = electrons(atoms)
    if abs(atoms.get_initial_charges().sum() - found.charge) >= TOLERANCE:
        atoms.set_initial_charges(np.full(len(atoms), found.charge / len(atoms)))
    if found.unpaired and not atoms.get_initial_magnetic_moments().any():
        atoms.set_initial_magnetic_moments(np.full(len(atoms), found.unpaired / len(atoms)))


def take_results(atoms: Atoms, results: Mapping[str, Any]) -> None:
    """Take over charges and moments that a file holds as results of a calculation, in place, where it has no others.

    ASE puts the columns ``charge`` and ``magmoms`` of a file there.
    """
    for name, initial in (("charges", "initial_charges"), ("magmoms", "initial_magmoms")):
        values = np.asarray(results.get(name, ()), dtype=np.float64)
        total = abs(values.sum(axis=0)) if name == "charges" else np.abs(values)
        if len(values) == len(atoms) and initial not in atoms.arrays and (total >= TOLERANCE).any():
            atoms.set_array(initial, values)


def without_electrons(atoms: Atoms) -> Atoms:
    """New atoms of the same elements, positions, cell, masses, charge, spin and moments, and with nothing else."""
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    for name in ("masses", *CHARGE_ARRAYS, *MOMENT_ARRAYS):
        if name in atoms.arrays:
            plain.set_array(name, atoms.arrays[name])
    plain.info = {key: atoms.info[key] for key in (*CHARGE_KEYS, *MULTIPLICITY_KEYS) if key in atoms.info}
    return plain


def strip_electrons(atoms: Atoms) -> None:
    """Make a neutral singlet of a structure, in place."""
    for key in (*CHARGE_KEYS, *MULTIPLICITY_KEYS):
        atoms.info.pop(key, None)
    for key in (*CHARGE_ARRAYS, *MOMENT_ARRAYS):
        atoms.arrays.pop(key, None)


def _said(atoms: Atoms, keys: Iterable[str]) -> dict[str, float]:
    said = {}
    for key in keys:
        if key in atoms.info:
            value = atoms.info[key]
            if not isinstance(value, int | float | np.integer | np.floating) or not np.isfinite(value):
                raise ValueError(f"{key}={value!r} is no number")
            said[key] = float(value)
    return said


def _summed(atoms: Atoms, names: Iterable[str]) -> dict[str, float]:
    """The sums of columns that are not zero throughout: a column of zeros is what is written where nothing is known."""
    sums = {}
    for name in names:
        values = atoms.arrays.get(name)
        if values is None or values.dtype.kind not in "iuf":
            continue
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds NaN or infinite numbers")
        if values.any():
            sums[name] = float(np.linalg.norm(values.sum(axis=0)) if values.ndim > 1 else values.sum())
    return sums


def _one(what: str, said: dict[str, float]) -> float:
    values = list(said.values())
    if values and max(values) - min(values) >= 2 * TOLERANCE:
        told = ", ".join(f"{key} {value:g}" for key, value in said.items())
        raise ValueError(f"it tells its {what} in ways that contradict each other: {told}")
    return values[0] if values else 0.0
