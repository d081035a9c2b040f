"""Read structures from files as plain `ase.Atoms`.

ASE's readers raise many kinds of errors. Here every failure becomes one error of one line that names file and format.
"""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype

from mlff_exp.common import refuse_irregular
from mlff_exp.structures.checks import check_apart, check_period, check_structure
from mlff_exp.structures.electrons import add_declared, set_initial_electrons, take_calculated_electrons
from mlff_exp.structures.keys import plain_key
from mlff_exp.structures.reading.deadline import DeadlineError, deadline
from mlff_exp.structures.reading.declared import read_declared
from mlff_exp.structures.reading.masses import set_masses
from mlff_exp.structures.reading.memory import limit_memory
from mlff_exp.structures.reading.text import Declared

# Readers of these formats find a frame by its number without keeping the other frames.
BY_NUMBER = ("extxyz", "traj")
# ASE's names of the formats that are read, and what people call them. Readers of others leave out units, charges,
# isotopes or atoms without a word.
FORMATS = {
    "extxyz": "xyz and extxyz",
    "cif": "CIF",
    "vasp": "POSCAR",
    "proteindatabank": "PDB",
    "mol": "mol",
    "sdf": "SDF",
    "traj": "ASE's traj",
    "json": "ASE's json",
    "gaussian-in": "inputs of Gaussian",
    "turbomole": "coord of Turbomole",
}
# ASE reads these keys in this spelling only, and ignores other spellings.
SPELLINGS = {"lattice": "Lattice", "pbc": "pbc", "properties": "Properties"}
OCCUPANCY = ("occupancy", "occupancies")
HEAVY_HYDROGEN = ("D", "T")
LONGEST_REASON = 300
LONGEST_SYMBOL = 12
READ_S, READ_S_PER_MIB = 10.0, 5.0
READ_BYTES, READ_BYTES_PER_BYTE = 2**30, 100


class StructureError(ValueError):
    """A file that gives no structure. The message says why; the caller adds the name of the file."""


def read_frames(path: Path, index: int | slice) -> dict[int, Atoms]:
    """Read frames of a file; each is checked, and has neither calculator nor constraints.

    Velocities and labels in the file are dropped unless they are in ``info`` or in arrays of other names. A column
    ``mass`` becomes the masses.

    Args:
        path: a regular file; ``@`` in it has no special meaning.
        index: number of one frame, negative from the end, or a slice.

    Returns:
        The frames by their number, from 0 on.

    Raises:
        StructureError: the format is unknown or refused, ASE fails, or a frame is missing or invalid.
    """
    name = str(path.absolute())
    kind = _format(path, name)
    found = _chosen(name, kind, index)
    try:
        with deadline(_seconds(name)):
            declared = read_declared(name, kind)
    except DeadlineError:
        raise StructureError(f"it was not read as {kind} within {_seconds(name):.0f} s") from None
    except ValueError as error:
        raise StructureError(str(error)) from error
    for number, atoms in found.items():
        try:
            _prepare(atoms, kind, declared)
        except ValueError as error:
            raise StructureError(f"frame {number}: {error}" if len(found) > 1 else str(error)) from error
    return found


def _format(path: Path, name: str) -> str:
    try:
        refuse_irregular(path, None)
    except OSError as error:
        raise StructureError(f"it can't be read: {error.strerror}") from error
    except ValueError as error:
        raise StructureError(str(error)) from error
    try:
        with deadline(_seconds(name)):
            kind = str(filetype(name))
    except DeadlineError:
        raise StructureError(f"ASE did not find its format within {_seconds(name):.0f} s") from None
    except Exception as error:
        raise StructureError(f"ASE finds no format for it: {_reason(error)}") from error
    if kind not in FORMATS:
        raise StructureError(
            f"the format {kind!r} is not read; legal formats are {', '.join(FORMATS.values())}: convert the file to "
            "extxyz"
        )
    return kind


def _chosen(name: str, kind: str, index: int | slice) -> dict[int, Atoms]:
    if isinstance(index, int) and kind in BY_NUMBER:
        found = _read(name, kind, slice(index, index + 1 or None))
        if len(found) == 1:
            return {index: found[0]}
    frames = _read(name, kind, slice(None))
    if isinstance(index, int):
        if not -len(frames) <= index < len(frames):
            raise StructureError(f"there is no frame {index}: the file has {len(frames)}, from 0 or from the end by -1")
        return {index: frames[index]}
    numbers = range(len(frames))[index]
    if not numbers:
        raise StructureError(f"system.index selects none of its {len(frames)} frames")
    return {number: frames[number] for number in numbers}


def _read(name: str, kind: str, wanted: slice) -> list[Atoms]:
    if kind == "extxyz":
        _refuse_short_file(name)
    seconds, n_bytes = _seconds(name), READ_BYTES + READ_BYTES_PER_BYTE * Path(name).stat().st_size
    try:
        # Some of ASE's readers never find the end of a file of another format, or allocate as much as a file asks for.
        with deadline(seconds), limit_memory(n_bytes):
            found = ase.io.read(name, index=wanted, format=kind, do_not_split_by_at_sign=True)
    except DeadlineError:
        raise StructureError(f"ASE did not finish reading it as {kind} within {seconds:.0f} s") from None
    except MemoryError:
        taken = f"{n_bytes / 2**30:.1f} GiB"
        raise StructureError(
            f"reading it as {kind} would take more than {taken}, which is too much for a file of its size"
        ) from None
    except Exception as error:
        raise StructureError(f"ASE can't read it as {kind}: {_reason(error)}") from error
    if not all(isinstance(atoms, Atoms) for atoms in found):
        raise StructureError(f"ASE reads no atoms from it as {kind}")
    return list(found)


def _seconds(name: str) -> float:
    return READ_S + READ_S_PER_MIB * Path(name).stat().st_size / 2**20


def _refuse_short_file(name: str) -> None:
    """Refuse a file that is too short for its number of atoms: ASE would search for each of them beyond the end."""
    if name.endswith((".gz", ".bz2", ".xz")):
        return
    with Path(name).open("rb") as file:
        first = file.readline(30).strip()
    # A line of an atom has a symbol, three numbers and what is between them.
    if first.isdigit() and 8 * int(first) > Path(name).stat().st_size:
        raise StructureError(f"its first line gives {int(first)} atoms, but the file is too short for them")


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args and error.args[0] in HEAVY_HYDROGEN:
        return f"ASE does not know {error.args[0]} as an element: write H, and give its mass in a column 'mass'"
    if isinstance(error, KeyError) and error.args and len(str(error.args[0])) <= LONGEST_SYMBOL:
        return f"{error.args[0]!r} is not the symbol of an element"
    text = " ".join(str(error).split())[:LONGEST_REASON]
    if isinstance(error, UnknownFileTypeError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _prepare(atoms: Atoms, kind: str, declared: Declared) -> None:
    """Keep what matters to a force field, and check it, in place.

    Raises:
        ValueError: the frame is invalid.
    """
    if declared.n_atoms not in (None, len(atoms)):
        raise ValueError(f"it has {declared.n_atoms} lines of atoms, and ASE reads {len(atoms)} of them as {kind}")
    if len(atoms) and not (atoms.numbers > 0).all():
        nameless = np.flatnonzero(atoms.numbers <= 0)[:10].tolist()
        raise ValueError(f"atoms {nameless} have no element ('X', a ghost or a dummy atom)")
    results = {} if atoms.calc is None else dict(atoms.calc.results)
    atoms.calc = None
    take_calculated_electrons(atoms, results)
    # ASE reports no force on a fixed atom, but this project moves all atoms.
    atoms.set_constraint()
    atoms.arrays.pop("momenta", None)
    if kind == "proteindatabank" and np.array_equal(atoms.cell.cellpar(), [1, 1, 1, 90, 90, 90]):
        # The format prescribes this cell for a structure that is no crystal.
        atoms.set_cell(None)
        atoms.pbc = False
    _refuse_occupancy(atoms)
    _refuse_spellings(atoms)
    _add_site_charges(atoms, declared.site_charges)
    set_masses(atoms)
    add_declared(atoms, declared.charge, declared.multiplicity)
    check_structure(atoms)
    check_period(atoms)
    check_apart(atoms)
    set_initial_electrons(atoms)


def _add_site_charges(atoms: Atoms, charges: tuple[float, ...]) -> None:
    """Give each atom of a crystal the charge of its site, in place."""
    if not charges:
        return
    sites = np.asarray(atoms.arrays.get("spacegroup_kinds", np.arange(len(atoms))))
    if sites.max(initial=0) >= len(charges):
        raise ValueError(f"it has charges of {len(charges)} sites, and ASE reads {int(sites.max()) + 1} sites")
    total = float(np.asarray(charges)[sites].sum())
    if total:
        atoms.info["charge"] = total


def _refuse_occupancy(atoms: Atoms) -> None:
    said: list[float] = []
    for key in OCCUPANCY:
        if key in atoms.arrays:
            said += np.asarray(atoms.arrays[key]).ravel().tolist()
        if isinstance(by_site := atoms.info.get(key), dict):
            said += [value for site in by_site.values() if isinstance(site, dict) for value in site.values()]
    # Programs that know no occupancy write zeros everywhere, or no numbers.
    known = [value for value in said if isinstance(value, int | float) and np.isfinite(value)]
    partly = [value for value in known if value != 1]
    if partly and any(known):
        raise ValueError(
            f"{len(partly)} of its sites are only partly occupied (occupancy {partly[0]:g}): choose one of the "
            "alternative positions"
        )


def _refuse_spellings(atoms: Atoms) -> None:
    for key in atoms.info:
        if plain_key(key) in SPELLINGS:
            raise ValueError(f"it has the key {key!r}, which ASE does not know: write {SPELLINGS[plain_key(key)]}")
