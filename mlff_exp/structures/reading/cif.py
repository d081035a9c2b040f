"""Read what ASE ignores in CIF files; what it would read as other atoms is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from ase.io.cif import parse_cif
from ase.io.formats import open_with_compression

from mlff_exp.structures.reading.text import ADVICE, NUMBER, Declared, check_numbers, is_element

CIF_TYPE = re.compile(r"([A-Z][a-z]?)(?:(\d*)([+-])|([+-])(\d*))?", re.ASCII)
CIF_NAMES = ("_symmetry_space_group_name_h-m", "_space_group_name_h-m_alt")
CIF_NUMBERS = ("_symmetry_int_tables_number", "_space_group_it_number")
CIF_OPERATIONS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
TRICLINIC = {"P1": 1, "P-1": 2}
SAME_PLACE = 1e-3  # of a cell vector
TYPES, LABELS = "_atom_site_type_symbol", "_atom_site_label"
EMPTY = {"", ".", "?", "0", "None"}
SITE = "_atom_site_"
# Tags of a site that change neither atoms nor charges, without `SITE`. Anisotropic displacements are other loops.
HARMLESS = re.compile(
    r"(?:type_symbol|label(?:_component_\d)?|fract_[xyz](?:_esd|_su)?|cartn_[xyz](?:_esd|_su)?|occupancy|"
    r"(?:u|b)_iso.*|(?:u|b)_equiv.*|aniso.*|adp_type|thermal_displace_type|symmetry_multiplicity|"
    r"site_symmetry_(?:multiplicity|order)|wyckoff_(?:symbol|label)|calc_flag|calc_attached_atom|refinement_flags.*|"
    r"disorder_(?:assembly|group)|restraints|constraints|attached_hydrogens|chemical_conn_number|description|id|"
    r"symmetry_order|local_axes.*|rigid_group.*|footnote_id|details)"
)
# Charges of sites and types; all must be empty, or they are charges of the atoms.
OXIDATION, OXIDATION_TYPES = "_atom_type_oxidation_number", "_atom_type_symbol"
FORMAL = ("_atom_site_charge", "_atom_site_formal_charge", "_atom_site_oxidation_number")
NUMBERS = (
    *(f"_atom_site_fract_{axis}" for axis in "xyz"),
    *(f"_cell_length_{vector}" for vector in "abc"),
    *(f"_cell_angle_{angle}" for angle in ("alpha", "beta", "gamma")),
)


def read_cif(name: str) -> Declared:
    """Read the charges of the sites; refuse isotopes, dummy atoms, alternatives, moments and unknown tags of sites.

    Raises:
        ValueError: there is something that ASE would ignore or take for something else.
    """
    with open_with_compression(name, "rb") as file:
        blocks = list(parse_cif(file))
    charges = [_check_block(block) for block in blocks]
    if len(blocks) > 1 and any(map(any, charges)):
        raise ValueError("it has several blocks, and charges in one of them: keep one block")
    return Declared(site_charges=charges[0] if len(charges) == 1 else ())


def _check_block(block: Any) -> tuple[float, ...]:
    """Refuse what is not read, and return the charges of the sites."""
    _refuse_tags(block)
    _refuse_types(block)
    _refuse_symmetry(block)
    for tag in NUMBERS:
        check_numbers(_column(block, tag))
    _refuse_same_place(block)
    for symbol in _column(block, TYPES, LABELS):
        if re.match(r"\W*\d+\W*[A-Za-z]|[A-Z][a-z]?[-(^]\d+\)?$", symbol):
            raise ValueError(f"it has atoms of the isotope {symbol}, and {ADVICE}")
    if "dum" in [flag.lower() for flag in _column(block, "_atom_site_calc_flag")]:
        raise ValueError("it has dummy atoms (_atom_site_calc_flag dum): remove them")
    groups = set(_column(block, "_atom_site_disorder_group")) - EMPTY
    if len(groups) > 1 or any(group.startswith("-") for group in groups):
        raise ValueError(
            f"it has alternative positions of atoms (_atom_site_disorder_group {', '.join(sorted(groups)[:5])}): "
            "choose one of them"
        )
    if set(_column(block, "_atom_site_attached_hydrogens")) - EMPTY:
        raise ValueError("it has hydrogen atoms without positions (_atom_site_attached_hydrogens): add them")
    return _site_charges(block)


def _refuse_tags(block: Any) -> None:
    """Refuse tags of sites that are not known, and magnetic structures, unless all their values are empty."""
    for tag in block:
        known = not tag.startswith(SITE) or HARMLESS.fullmatch(tag.removeprefix(SITE)) or tag in FORMAL
        magnetic = "moment" in tag or "magn" in tag
        if (not known or magnetic) and set(_column(block, tag)) - EMPTY - {"0.0"}:
            raise ValueError(f"it has {tag}, which is not read: remove it if it changes neither atoms nor charges")


def _site_charges(block: Any) -> tuple[float, ...]:
    """Return formal charges of the sites: those of columns, of types as Na+, or of their oxidation numbers."""
    types, oxidation = _column(block, OXIDATION_TYPES), _column(block, OXIDATION)
    by_type = {symbol: _number(OXIDATION, given) for symbol, given in zip(types, oxidation, strict=False)}
    said = [[_number(tag, given) for given in _column(block, tag)] for tag in FORMAL if tag in block]
    species = _column(block, TYPES, LABELS)
    said += [[_charge_of(symbol) for symbol in species], [by_type.get(symbol, 0.0) for symbol in species]]
    given = [tuple(charges) for charges in said if any(charges)]
    if len(set(given)) > 1:
        raise ValueError("it gives contradicting charges of its sites")
    return given[0] if given else ()


def _number(tag: str, text: str) -> float:
    if text in EMPTY:
        return 0.0
    if not NUMBER.fullmatch(text):
        raise ValueError(f"its {tag} {text[:20]!r} is no number")
    return float(text)


def _charge_of(symbol: str) -> float:
    found = CIF_TYPE.fullmatch(symbol)
    sign = (found[3] or found[4]) if found else None
    return 0.0 if found is None or sign is None else float(sign + (found[2] or found[5] or "1"))


def _refuse_types(block: Any) -> None:
    """Refuse types of atoms that ASE would cut: OH to O, CA to C; without types the labels, whose letters are read."""
    if TYPES not in block:
        for label in _column(block, LABELS):
            letters = re.match(r"[A-Za-z]*", label)
            if letters is None or not (is_element(letters[0]) or letters[0] == "D"):
                raise ValueError(
                    f"its label {label[:20]!r} does not begin with the symbol of an element, and it has no {TYPES}"
                )
    for symbol in _column(block, TYPES):
        found = CIF_TYPE.fullmatch(symbol)
        isotope = re.match(r"\W*\d+\W*[A-Za-z]|[A-Z][a-z]?[-(^]\d+\)?$|[DT]$", symbol)
        if (found is None or not is_element(found[1])) and not isotope:
            raise ValueError(f"its _atom_site_type_symbol {symbol[:20]!r} is no element, with or without a charge")


def _refuse_symmetry(block: Any) -> None:
    """Refuse a space group without inversion or with it alone that the number or the operations contradict."""
    names = {"".join(name.split()).upper() for name in _column(block, *CIF_NAMES)} - EMPTY
    numbers = {int(number) for number in _column(block, *CIF_NUMBERS) if number.isdigit()}
    operations = _column(block, *CIF_OPERATIONS)
    for operation in operations:
        if not re.fullmatch(r"(?i)\s*(?:[-+xyz\d/.\s]+,){2}[-+xyz\d/.\s]+", operation):
            raise ValueError(f"its operation {operation[:30]!r} can't be read")
    for name, number in TRICLINIC.items():
        said, counted = name in names, number in numbers
        others = (numbers - {number}) if said else (names - {name}) if counted else set()
        if others:
            raise ValueError(f"its space group is both {name} and {', '.join(map(str, sorted(others)))}")
        if (said or counted) and len(operations) not in (0, number):
            raise ValueError(f"its space group {name} has {number} operations, and {len(operations)} are listed")


def _refuse_same_place(block: Any) -> None:
    """Refuse two atoms in one place, of which ASE keeps the first; with occupancies they are refused elsewhere."""
    if set(_column(block, "_atom_site_occupancy")) - EMPTY - {"1", "1.0"}:
        return
    from scipy.spatial import cKDTree  # it takes longer to import than most files to read

    columns = [_column(block, f"_atom_site_fract_{axis}") for axis in "xyz"]
    try:
        places = np.array([[float(text) for text in column] for column in columns]).T
    except ValueError:  # ASE says what is wrong with a number
        return
    if len(places) < 2 or not np.isfinite(places).all():
        return
    inside = places % 1.0
    inside[inside >= 1.0] = 0.0
    if pairs := cKDTree(inside, boxsize=1.0).query_pairs(SAME_PLACE):
        first, second = min(pairs)
        raise ValueError(f"its atoms {first} and {second} are in one place")


def _column(block: Any, *names: str) -> list[str]:
    values: Any = next((block[name] for name in names if name in block), [])
    return [str(value) for value in (values if isinstance(values, list) else [values])]
