"""Structures from files: used rightly, or refused by name before any work."""

from __future__ import annotations

import gzip
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from mlff_exp.config.errors import ConfigError
from mlff_exp.config.systems import FileSystem
from mlff_exp.structures.batch import collate
from mlff_exp.structures.checks import check_apart, check_neighbors, check_period
from mlff_exp.structures.reading import frames
from mlff_exp.structures.systems import build_systems
from tests.helpers.structures import CASES, WATER, three_frames


def read(path: Path, **settings: object) -> list[Atoms]:
    return list(build_systems(FileSystem(path=str(path), **settings)).values())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["three.extxyz", "three.traj", "three.xyz.gz", "three.json"])
def test_a_frame_is_the_one_asked_for_or_none(tmp_path: Path, name: str) -> None:
    path = three_frames(tmp_path / name)
    for index, distance in ((0, 1.0), (2, 1.2), (-1, 1.2), (-3, 1.0)):
        (atoms,) = read(path, index=index)
        assert atoms.get_distance(0, 1) == pytest.approx(distance)
    for index in (3, -4, 10**9):
        with pytest.raises(ConfigError, match=rf"{name}'.*no frame {index}: the file has 3"):
            read(path, index=index)


@pytest.mark.parametrize("index", [1, -2])
def test_a_format_of_one_frame_has_no_other(tmp_path: Path, index: int) -> None:
    write(tmp_path / "POSCAR", bulk("NaCl", "rocksalt", 5.6), format="vasp")
    assert len(read(tmp_path / "POSCAR")[0]) == 2
    with pytest.raises(ConfigError, match=f"no frame {index}: the file has 1"):
        read(tmp_path / "POSCAR", index=index)


@pytest.mark.parametrize(
    ("index", "numbers"), [("all", [0, 1, 2]), (":", [0, 1, 2]), ("0:10:2", [0, 2]), ("-2:", [1, 2]), ("1:2", [1])]
)
def test_several_frames_are_several_systems(tmp_path: Path, index: str, numbers: list[int]) -> None:
    path = three_frames(tmp_path / "three.extxyz")
    found = build_systems(FileSystem(path=str(path), index=index))
    assert list(found) == [f"three_{number}" for number in numbers]
    for number, atoms in zip(numbers, found.values(), strict=True):
        assert atoms.get_distance(0, 1) == pytest.approx(1 + 0.1 * number)


@pytest.mark.parametrize("index", ["::0", "first", "1:2:3:4", "", "1.5", "a:b"])
def test_an_illegal_index_is_refused(tmp_path: Path, index: str) -> None:
    path = three_frames(tmp_path / "three.extxyz")
    with pytest.raises(ConfigError, match=r"neither a frame's number, a slice as 0:10:2, nor all"):
        FileSystem(path=str(path), index=index)


def test_a_slice_that_selects_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="selects none of its 3 frames"):
        read(three_frames(tmp_path / "three.extxyz"), index="5:9")


def test_an_at_sign_in_a_path_is_a_character(tmp_path: Path) -> None:
    path = three_frames(tmp_path / "frames@0.extxyz")
    (atoms,) = read(path)
    assert atoms.get_distance(0, 1) == pytest.approx(1.2)


@pytest.mark.parametrize("name", ["postgresql.xyz", "mysql.xyz"])
def test_the_name_of_a_file_calls_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_text(WATER.format(""))
    monkeypatch.chdir(tmp_path)
    assert len(read(Path(name))[0]) == 3


def test_a_column_of_masses_is_the_masses() -> None:
    (heavy,) = read(CASES / "d2o_mass.extxyz")
    np.testing.assert_allclose(heavy.get_masses(), [15.999, 2.014, 2.014])
    assert "mass" not in heavy.arrays


@pytest.mark.parametrize("mass", ["0", "-1", "nan", "inf", "1e30", "1e-30"])
def test_an_illegal_mass_is_refused(tmp_path: Path, mass: str) -> None:
    text = (CASES / "d2o_mass.extxyz").read_text().replace("15.99900000", mass)
    (tmp_path / "light.extxyz").write_text(text)
    with pytest.raises(ConfigError, match=r"light.extxyz': the mass of atom 0 is .*; legal masses are 0\.5 to 400 u"):
        read(tmp_path / "light.extxyz")


@pytest.mark.parametrize("symbol", ["D", "T"])
def test_heavy_hydrogen_by_its_letter_is_refused_with_a_way_out(tmp_path: Path, symbol: str) -> None:
    (tmp_path / "heavy.xyz").write_text(WATER.format("").replace("H", symbol))
    with pytest.raises(ConfigError, match=rf"{symbol} as an element: write H, and give its mass in a column 'mass'"):
        read(tmp_path / "heavy.xyz")


CIF = """data_x
_cell_length_a 5
_cell_length_b 5
_cell_length_c 5
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""


def test_sites_that_are_occupied_in_part_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mixed.cif"
    path.write_text(f"{CIF}C1 C 0 0 0 1.0\nN1 N 0.5 0.5 0.5 1.0\n")
    assert len(read(path)[0]) == 2
    path.write_text(f"{CIF}C1 C 0 0 0 0.7\nN1 N 0 0 0 0.3\n")
    with pytest.raises(ConfigError, match=r"mixed.cif': .* of its sites are only partly occupied \(occupancy 0\.7\)"):
        read(path)
    path.write_text(f"{CIF}C1 C 0 0 0 0.5\n")
    with pytest.raises(ConfigError, match="only partly occupied"):
        read(path)


def pdb(cell: str, *, occupancy: str = "1.00", charge: str = "  ") -> str:
    lines = [cell] if cell else []
    for number, (symbol, at) in enumerate([("O", (0, 0, 0)), ("H", (0, 0, 0.96)), ("H", (0, 0.93, -0.24))], start=1):
        place = "".join(f"{value:8.3f}" for value in at)
        own = charge if symbol == "O" else "  "
        lines.append(f"HETATM{number:5d}  {symbol}   HOH A   1    {place}  {occupancy}  0.00          {symbol:>2}{own}")
    return "\n".join([*lines, "END\n"])


def test_the_placeholder_cell_of_a_pdb_is_no_cell(tmp_path: Path) -> None:
    path = tmp_path / "water.pdb"
    path.write_text(pdb("CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1"))
    (atoms,) = read(path)
    assert not atoms.pbc.any()
    assert atoms.cell.rank == 0
    path.write_text(pdb("CRYST1   10.000   10.000   10.000  90.00  90.00  90.00 P 1           1"))
    assert read(path)[0].pbc.all()


def test_alternatives_in_a_pdb_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "water.pdb"
    path.write_text(pdb("", occupancy="0.00"))  # nobody has looked
    assert len(read(path)[0]) == 3
    path.write_text(pdb("", occupancy="0.50"))
    with pytest.raises(ConfigError, match=r"only partly occupied \(occupancy 0\.5\)"):
        read(path)


def test_charges_that_ase_leaves_in_the_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "hydroxide.pdb").write_text(pdb("", charge="1-"))
    assert read(tmp_path / "hydroxide.pdb")[0].info["charge"] == -1
    mol = "\n\n\n  1  0  0  0  0  0            999 V2000\n    0.0000    0.0000    0.0000 Cl  0  {}  0  0\n{}M  END\n"
    (tmp_path / "chloride.mol").write_text(mol.format(5, ""))
    assert read(tmp_path / "chloride.mol")[0].info["charge"] == -1
    (tmp_path / "chloride.sdf").write_text(mol.format(0, "M  CHG  1   1  -1\n") + "$$$$\n")
    assert read(tmp_path / "chloride.sdf")[0].info["charge"] == -1
    (tmp_path / "heavy.mol").write_text(mol.format(0, "M  ISO  1   1  37\n"))
    with pytest.raises(ConfigError, match=r"'M  ISO' gives isotopes"):
        read(tmp_path / "heavy.mol")


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ('Lattice="1 0 0 0 1 0 0 0 1"', "its cell repeats every atom after 1 Å"),
        ('Lattice="10 0 0 10.5 0.5 0 0 0 10"', "its cell repeats every atom after 0.707 Å"),
        ('Lattice="0.001 0 0 0 0.001 0 0 0 0.001"', "its cell repeats every atom after 0.001 Å"),
        ('Lattice="0.05 0 0 0 10 0 0 0 10" pbc="T F F"', "its cell repeats every atom after 0.05 Å"),
        ('Lattice="10 0 0 0 10 0 10 10 0"', "has no volume: its periodic vectors lie in one plane"),
        ('Lattice="10 0 0 20 0 0 0 0 10"', "has no volume"),
        ('Lattice="10 0 0 0 10 0 10 10 1e-9"', "has no volume"),
        ('Lattice="10 0 0 0 10 0 0 0 0"', "periodic along a cell vector that has no length"),
        ('pbc="T T T"', "periodic along a cell vector that has no length"),
        ('Lattice="nan 0 0 0 10 0 0 0 10"', "NaN or infinite"),
        ('Lattice="inf 0 0 0 10 0 0 0 10" pbc="F F F"', "NaN or infinite"),
    ],
)
def test_an_illegal_cell_is_refused(tmp_path: Path, comment: str, message: str) -> None:
    path = tmp_path / "cell.xyz"
    path.write_text(WATER.format(f"{comment} Properties=species:S:1:pos:R:3"))
    started = time.perf_counter()
    with pytest.raises(ConfigError, match=rf"cell.xyz': .*{message}"):
        read(path)
    assert time.perf_counter() - started < 1
    if "repeats" not in message:
        with pytest.raises(ValueError, match=message):
            collate([Atoms("OH", [(0, 0, 0), (0, 0, 1)], **_cell(comment))], 5.0)


def _cell(comment: str) -> dict[str, object]:
    lattice = comment.partition('Lattice="')[2].partition('"')[0].split()
    cell = np.array(lattice, dtype=float).reshape(3, 3) if lattice else None
    return {"cell": cell, "pbc": 'pbc="F F F"' not in comment}


def test_a_list_of_more_images_than_memory_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="images of the cell of H2"):
        collate([Atoms("H2", [(0, 0, 0), (0, 0, 0.7)], cell=[0.001] * 3, pbc=True)], 5.0)
    many = Atoms(np.ones(500_000, dtype=int), np.zeros((500_000, 3)), cell=[5] * 3, pbc=True)
    with pytest.raises(ValueError, match=r"the neighbours of 500000 atoms within 5 Å would take \d+ GiB"):
        check_neighbors(many, 5.0)
    check_neighbors(bulk("C"), 6.0)
    check_period(bulk("C"))


@pytest.mark.parametrize(
    ("line", "comment", "message"),
    [
        ("H nan 0 0", "", "positions are NaN or infinite for atoms 1"),
        ("H 1e30 0 0", "", r"positions are more than 1e\+06 Å from the origin for atoms 1"),
        ("H 0 0 0.02", "", r"atoms 0 and 1 are 0\.020 Å apart"),
        ("H 0 0 0", "", r"atoms 0 and 1 are 0\.000 Å apart"),
        ("H 0 0 2.98", 'Lattice="3 0 0 0 3 0 0 0 3" pbc="T T T"', r"atoms 0 and 1 are 0\.020 Å apart"),
        ("H 2.98 9.01 0", 'Lattice="3 0 0 0 3 0 0 0 3" pbc="T T T"', r"atoms 0 and 1 are 0\.022 Å apart"),
        ("H 2.99 2.99 2.99", 'Lattice="3 0 0 0 3 0 0 0 3" pbc="T T T"', r"atoms 0 and 1 are 0\.017 Å apart"),
        ("X 0 0 1", "", r"atoms \[1\] have no element"),
    ],
)
def test_positions_that_no_force_field_takes_are_named(tmp_path: Path, line: str, comment: str, message: str) -> None:
    path = tmp_path / "bad.xyz"
    path.write_text(f"2\n{comment}\nO 0 0 0\n{line}\n")
    with pytest.raises(ConfigError, match=f"bad.xyz': {message}"):
        read(path)


def test_images_across_two_faces_are_found() -> None:
    across = Atoms("H2", [(0.02, 2.99, 1), (2.99, 0.02, 1)], cell=[[3, 0, 0], [1.5, 3, 0], [0, 0, 3]], pbc=True)
    expected = across.get_distance(0, 1, mic=True)
    if expected < 0.1:
        with pytest.raises(ValueError, match=f"{expected:.3f} Å"):
            check_apart(across)
    corners = Atoms("H2", [(0.02, 2.98, 1), (2.98, 0.02, 1)], cell=[3, 3, 3], pbc=True)
    with pytest.raises(ValueError, match=r"atoms 0 and 1 are 0\.057 Å apart"):
        check_apart(corners)


def test_a_hundred_thousand_atoms_are_checked_in_seconds() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(47.0)] * 3), axis=-1).reshape(-1, 3)[:100_000]
    many = Atoms(np.ones(len(grid), dtype=int), grid)
    started = time.perf_counter()
    check_apart(many)
    many.positions[:] = 0
    with pytest.raises(ValueError, match=r"0\.000 Å apart"):
        check_apart(many)
    assert time.perf_counter() - started < 5


def malformed(path: Path) -> list[Path]:
    """Files of every extension and name that ASE knows, with contents that are none of theirs."""
    contents = {
        "garbage": bytes(range(256)) * 8,
        "text": b"not a structure\n" * 5,
        "empty": b"",
        "pickle": pickle.dumps({"a": 1}),
        "gzip": gzip.compress(b"3\n\nO 0 0 0\n" * 100)[:40],
        "json": b'{"1": {"numbers": 3}, "ids": [1], "nextid": 2}',
    }
    from ase.io.formats import ioformats

    names = {f"x.{extension}" for one in ioformats.values() for extension in one.extensions}
    names |= {glob.replace("*", "x") for one in ioformats.values() for glob in one.globs}
    names |= {
        "x.py",
        "x.xyz.gz",
        "x.xyz.bz2",
        "x.xyz.xz",
        "x.db",
        "x.gpw",
        "x.nc",
        "x",
        "x.unknown",
        "x.bundle",
        "x.traj",
    }
    files = []
    for kind, content in contents.items():
        (path / kind).mkdir()
        for name in sorted(names):
            files.append(path / kind / name)
            files[-1].write_bytes(content)
    return files


@pytest.mark.filterwarnings("ignore")
def test_whatever_is_no_structure_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "READ_S", 0.3)
    for path in malformed(tmp_path):
        with pytest.raises(ConfigError) as refused:
            read(path)
        text = str(refused.value)
        assert str(path) in text
        assert "\n" not in text
        assert len(text) < 700


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.xyz")
    for path in ("pipe.xyz", ".", "missing.xyz", "x" * 300 + ".xyz", "a\0.xyz"):
        with pytest.raises(ConfigError, match="is not a file"):
            FileSystem(path=str(tmp_path / path), name="x")
    with pytest.raises(ConfigError, match="is not a file"):
        FileSystem(path="~nobody-of-this-name/x.xyz")


def test_a_file_without_atoms_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.xyz").write_text("0\n\n")
    with pytest.raises(ConfigError, match=r"none.xyz': empty structure"):
        read(tmp_path / "none.xyz")


def test_a_file_too_short_for_its_number_of_atoms_is_refused(tmp_path: Path) -> None:
    (tmp_path / "many.xyz").write_text("1000000000\n\nO 0 0 0\n")
    started = time.perf_counter()
    with pytest.raises(ConfigError, match="its first line gives 1000000000 atoms, but the file is too short for them"):
        read(tmp_path / "many.xyz")
    assert time.perf_counter() - started < 1


def test_nothing_of_the_files_motion_and_calculator_is_kept() -> None:
    (atoms,) = read(CASES / "labelled.extxyz")
    assert "momenta" not in atoms.arrays
    assert atoms.calc is None


def test_a_molecule_of_ase_is_fit() -> None:
    check_apart(molecule("C60"))
