"""Charge, spin and magnetic moments of a structure, which most machine-learned force fields do not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from mlff_exp.structures.keys import TOLERANCE, means_other, plain_key, refuse_unread, refuse_unread_columns

# Keys of a structure that give its charge and spin, in the form that `plain_key` returns.
CHARGE_KEYS = {"charge", "q", "qtot", "qtotal", "totalq", "netq", "molq", "chrg", "totcharge", "chg", "icharg"}
CHARGE_ENDING = "charge"  # total_charge, net_charge, mol_charge …
# The multiplicity 2S + 1. Data sets of molecules with a key `spin` mean this; 0 stands for "not given".
MULTIPLICITY_KEYS = {"spin", "mult", "multip", "spinmult", "2s+1", "2sp1", "smult"}
MULTIPLICITY_ENDING = "multiplicity"
UNPAIRED_KEYS = {"uhf", "nuhf", "nopen", "2s", "2ms", "magmom", "totalmagmom", "totmagnetization", "totalmagnetization"}
UNPAIRED_PART = "unpaired"
# Keys that mean S in some programs and 2S + 1 in others.
UNCLEAR_SPIN_KEYS = {"totalspin", "totspin", "spinstate", "electronicspin", "electronspin", "s2", "sz"} | {
    "ssquared", "stotal", "totals",
}  # fmt: skip
CHARGE_COLUMNS = {"q", "charge", "charges", "initialcharge", "initialcharges", "formalcharge", "formalcharges"} | {
    "atomiccharge", "atomiccharges", "atomcharge", "atomcharges", "partialcharge", "partialcharges"
}  # fmt: skip
MOMENT_COLUMNS = {"magmom", "magmoms", "initialmagmom", "initialmagmoms", "magneticmoment", "magneticmoments"} | {
    "spin", "spins", "moment", "moments"
}  # fmt: skip


@dataclass(frozen=True)
class Electrons:
    """Charge and spin of a structure.

    Attributes:
        charge: total charge, e.
        unpaired: number of unpaired electrons; 0 is a singlet.
        has_moments: whether any atom has a magnetic moment, even if the moments cancel.
    """

    charge: float
    unpaired: float
    has_moments: bool

    @property
    def is_plain(self) -> bool:
        """Whether the structure is a neutral singlet without magnetic moments."""
        return abs(self.charge) < TOLERANCE and abs(self.unpaired) < TOLERANCE and not self.has_moments


def read_electrons(atoms: Atoms) -> Electrons:
    """Read charge and spin from ``info`` and the arrays of a structure; the default is a neutral singlet.

    Raises:
        ValueError: a value is no number, two values contradict each other, or a key or column that is not read tells
            of charge or spin.
    """
    n_electrons = int(atoms.numbers.sum())
    refuse_unread(atoms.info, [key for key in atoms.info if _is_electronic(key)], n_electrons)
    refuse_unread_columns(atoms.arrays, CHARGE_COLUMNS | MOMENT_COLUMNS)
    charges = _said(atoms, _is_charge)
    multiplicities = {key: value for key, value in _said(atoms, _is_multiplicity).items() if value != 0}
    for key, value in multiplicities.items():
        if value < 1 or value != round(value):
            raise ValueError(f"{key}={value:g} is no multiplicity: 1 is a singlet, 2 a doublet")
    for key, value in _said(atoms, lambda plain: plain in UNCLEAR_SPIN_KEYS).items():
        if value != 0:
            raise ValueError(f"{key}={value:g} may be S or 2S + 1: write spin=… for the multiplicity 2S + 1")
    unpaired = {key: value - 1 for key, value in multiplicities.items()}
    unpaired |= {key: abs(value) for key, value in _said(atoms, _is_unpaired).items()}
    atomic = _summed(atoms, CHARGE_COLUMNS)
    moments = _summed(atoms, MOMENT_COLUMNS)
    return Electrons(
        _one("total charge", charges | atomic),
        # Moments may have either sign.
        abs(_one("number of unpaired electrons", unpaired | {key: abs(value) for key, value in moments.items()})),
        bool(moments),
    )


def refuse_charge_and_spin(atoms: Atoms) -> None:
    """Refuse a structure that a model without charge and spin would treat as a neutral singlet.

    Raises:
        ValueError: the structure has a total charge, unpaired electrons or magnetic moments. The message says which.
    """
    found = read_electrons(atoms)
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


def set_initial_electrons(atoms: Atoms) -> None:
    """Set initial charges and moments of the atoms, in place, where only ``info`` gives charge and spin.

    ASE calculators such as TBLite read those of the atoms and use only their sum. The values are spread evenly.

    Raises:
        ValueError: as `read_electrons`.
    """
    found = read_electrons(atoms)
    if abs(atoms.get_initial_charges().sum() - found.charge) >= TOLERANCE:
        atoms.set_initial_charges(np.full(len(atoms), found.charge / len(atoms)))
    if found.unpaired and not atoms.get_initial_magnetic_moments().any():
        atoms.set_initial_magnetic_moments(np.full(len(atoms), found.unpaired / len(atoms)))


def take_calculated_electrons(atoms: Atoms, results: Mapping[str, Any]) -> None:
    """Use charges and moments among the calculated results of a file, in place, where the structure has no others.

    ASE stores the columns ``charge`` and ``magmoms`` of a file as results.

    Args:
        atoms: the structure.
        results: results of the calculator that ASE made for the file.
    """
    for name, initial in (("charges", "initial_charges"), ("magmoms", "initial_magmoms")):
        values = np.asarray(results.get(name, ()), dtype=np.float64)
        total = abs(values.sum(axis=0)) if name == "charges" else np.abs(values)
        # NaN is not below the tolerance, and is refused later.
        if len(values) == len(atoms) and initial not in atoms.arrays and not (total < TOLERANCE).all():
            atoms.set_array(initial, values)
    moment: Any = results.get("magmom", 0.0)
    says = any(_is_multiplicity(plain_key(key)) or _is_unpaired(plain_key(key)) for key in atoms.info)
    known = isinstance(moment, int | float | np.integer | np.floating) and abs(float(moment)) >= TOLERANCE
    if known and "initial_magmoms" not in atoms.arrays and not says:
        atoms.info["magmom"] = float(moment)


def add_declared(atoms: Atoms, charge: float | None, multiplicity: float | None) -> None:
    """Add charge and multiplicity to ``info``, in place, where the structure does not give them.

    Args:
        atoms: the structure.
        charge: total charge, e, or None.
        multiplicity: 2S + 1, or None.
    """
    if charge and not any(_is_charge(plain_key(key)) for key in atoms.info):
        atoms.info["charge"] = charge
    says_spin = any(_is_multiplicity(plain_key(key)) or _is_unpaired(plain_key(key)) for key in atoms.info)
    if multiplicity not in (None, 1) and not says_spin:
        atoms.info["spin"] = multiplicity


def copy_without_labels(atoms: Atoms) -> Atoms:
    """Return new atoms with elements, positions, cell, masses, charge, spin and moments, and nothing else."""
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    for name, values in atoms.arrays.items():
        if name == "masses" or plain_key(name) in CHARGE_COLUMNS | MOMENT_COLUMNS:
            plain.set_array(name, values)
    plain.info = {key: value for key, value in atoms.info.items() if _is_electronic(key)}
    return plain


def make_neutral_singlet(atoms: Atoms) -> None:
    """Remove charge, spin and moments from a structure, in place."""
    for key in [key for key in atoms.info if _is_electronic(key)]:
        del atoms.info[key]
    for key in [key for key in atoms.arrays if plain_key(key) in CHARGE_COLUMNS | MOMENT_COLUMNS]:
        del atoms.arrays[key]


def _is_charge(plain: str) -> bool:
    return plain in CHARGE_KEYS or (plain.endswith(CHARGE_ENDING) and not means_other(plain))


def _is_multiplicity(plain: str) -> bool:
    return plain in MULTIPLICITY_KEYS or plain.endswith(MULTIPLICITY_ENDING)


def _is_unpaired(plain: str) -> bool:
    return plain in UNPAIRED_KEYS or UNPAIRED_PART in plain


def _is_electronic(key: object) -> bool:
    plain = plain_key(key)
    return _is_charge(plain) or _is_multiplicity(plain) or _is_unpaired(plain) or plain in UNCLEAR_SPIN_KEYS


def _said(atoms: Atoms, is_wanted: Callable[[str], bool]) -> dict[str, float]:
    said = {}
    for key, value in atoms.info.items():
        if is_wanted(plain_key(key)):
            number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
            if value is True:
                raise ValueError(f"its word {key!r} has no value: write {str(key).rstrip(':')}=…, or leave it out")
            if not number or not np.isfinite(value):
                raise ValueError(f"{key}={value!r} is no number")
            said[str(key)] = float(value)
    return said


def _summed(atoms: Atoms, names: Set[str]) -> dict[str, float]:
    """Sum the columns that are not zero everywhere: programs write a column of zeros where they know nothing."""
    sums = {}
    for name, values in atoms.arrays.items():
        if plain_key(name) not in names or values.dtype.kind not in "iuf":
            continue
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds NaN or infinite numbers")
        if values.any():
            sums[name] = float(np.linalg.norm(values.sum(axis=0)) if values.ndim > 1 else values.sum())
    return sums


def _one(what: str, said: dict[str, float]) -> float:
    values = list(said.values())
    if values and max(values) - min(values) >= 2 * TOLERANCE:
        values_given = ", ".join(f"{key} {value:g}" for key, value in said.items())
        raise ValueError(f"it gives contradicting values for the {what}: {values_given}")
    return values[0] if values else 0.0
