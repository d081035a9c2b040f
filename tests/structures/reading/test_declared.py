"""Facts in a file that ASE's reader leaves out or misreads are read by us or refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mlff_exp.config.errors import ConfigError
from mlff_exp.config.systems import FileSystem
from mlff_exp.structures.electrons import read_electrons, refuse_charge_and_spin
from mlff_exp.structures.reading.declared import read_declared
from mlff_exp.structures.systems import build_systems
from tests.helpers.structures import WATER

ATOM = "{:6}{:5d}  {:3} HOH A   1    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00          {:>2}"
MOL = "\n\n\n  2  0  0  0  0  0            999 V2000\n    0.0000    0.0000    0.0000 O  {}{}\n" + (
    "    0.0000    0.0000    0.9600 H   0  0\n{}M  END\n"
)
CIF = "data_x\n" + "".join(f"_cell_length_{axis} 5\n" for axis in "abc") + (
    "_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 90\n_symmetry_space_group_name_H-M 'P 1'\nloop_\n"
    "_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
    "O1 O 0 0 0\nH1 {} 0 0 0.2\n"
)  # fmt: skip
CIF_WITH = CIF.replace("O1 O 0 0 0\nH1 {} 0 0 0.2\n", "{}\nO1 O 0 0 0 {}\nH1 H 0 0 0.2 {}\n")
COORD = "$coord{}\n 0 0 0 o\n 0 0 1.8 h\n{}$end\n"
GAUSSIAN = "#p hf{}\n\nt\n\n0 1\nO 0.0 0.0 0.0\nH{} 0.0 0.0 1.0\n\n"


def read(directory: Path, name: str, text: str) -> list:
    (directory / name).write_text(text)
    return list(build_systems(FileSystem(path=str(directory / name), name="x")).values())


def pdb(element: str) -> str:
    return ATOM.format("HETATM", 1, "O", 0, 0, 0, "O") + "\n" + ATOM.format("HETATM", 2, "H1", 0, 0, 0.96, element)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.pdb", pdb("D"), "isotope D"),
        ("x.pdb", pdb("T"), "isotope T"),
        ("x.pdb", pdb("Q"), "'Q' in columns 77 and 78: no element"),
        (
            "x.pdb",
            "CRYST1    5.000    5.000    5.000  90.00  90.00  90.00 P 21 21 21    4\n" + pdb("H"),
            "its space group is P 21 21 21, and ASE makes no atoms by symmetry",
        ),
        ("x.cif", CIF.format("OH"), "_atom_site_type_symbol 'OH' is no element"),
        ("x.cif", CIF.format("CA"), "'CA' is no element"),
        ("x.cif", CIF.format("H").replace("0 0 0.2", "1.0 0 1e-5"), " 0 and 1 are "),
        ("x.cif", CIF.format("H").replace("loop_", "_symmetry_Int_Tables_number 2\nloop_", 1), "both P1 and 2"),
        ("x.cif", CIF_WITH.format("_atom_site_calc_flag", "d", "Dum"), "it has dummy atoms"),
        ("x.mol", MOL.format(" 0", "  0", "").replace("  2  0", " +2  0"), "does not begin with two counts"),
        ("x.mol", MOL.format(" 0", "  0", "").replace("V2000", "V3000"), "is not of V2000"),
        ("x.mol", MOL.format(" 0", "  0", "").replace("\n\n", "\n     RDKit          2D\n", 1), "is a drawing"),
        ("x.mol", MOL.format(" 0", "  0", "M  CHG  1   1\n"), "does not give as many charges as it says"),
        ("x.mol", MOL.format(" 0", "  0", "M  ALS   1  2 F O   N\n"), "'M  ALS"),
        ("x.com", GAUSSIAN.format(" unit=bohr", ""), "'unit=bohr'"),
        ("x.cif", CIF.format("2H"), "isotope 2H"),
        ("x.cif", CIF.format("3H"), "isotope 3H"),
        ("x.mol", MOL.format(" 2", "  0", ""), "atom 0 has a mass difference '2'"),
        ("x.sdf", MOL.format("-1", "  0", ""), "atom 0 has a mass difference '-1'"),
        ("x.mol", MOL.format(" 0", "  4", ""), "atom 0 is a radical"),
        ("x.com", "#p hf\n\nt\n\n0 1\nO 0.0 0.0 0.0\nH(Iso=2) 0.0 0.0 1.0\n\n", "gives masses"),
        ("x.sdf", 2 * (MOL.format(" 0", "  0", "") + "$$$$\n"), "it has 2 molecules"),
        ("x.xyz", WATER.format("isotope=2"), "isotopes by 'isotope'"),
        ("x.xyz", "1\nProperties=species:S:1:pos:R:3:isotope:I:1\nH 0 0 0 2\n", "isotopes by 'isotope'"),
        ("x.xyz", WATER.format('Masses="16 2 2"'), "its masses are in the comment as 'Masses'"),
        ("x.xyz", WATER.format('pbc="Q R"'), 'pbc="Q R" is not legal'),
        (
            "x.xyz",
            WATER.format('Lattice="9 0 0 0 9 0 0 0 9" pbc="yes no no"'),
            "is not legal: give one or three of T and F",
        ),
        ("x.xyz", WATER.format('lattice="9 0 0 0 9 0 0 0 9"'), "'lattice', which ASE does not know: write Lattice"),
        ("x.xyz", WATER.format('PBC="T T T"'), "'PBC', which ASE does not know: write pbc"),
        ("x.xyz", WATER.format("total_spin=1"), "may be S or 2S"),
        ("x.xyz", WATER.format("charge=T"), "has no value: write charge="),
        ("x.xyz", WATER.format("charge=1 charge=0"), "the key 'charge' twice"),
        ("x.xyz", WATER.format("-1 1"), "may be charge and multiplicity: write charge=-1 spin=1"),
        ("x.xyz", WATER.format("0 3"), "may be charge and multiplicity"),
        ("x.xyz", WATER.format("units=bohr"), "its comment says 'units=bohr', and ASE reads positions in Å"),
        ("x.xyz", WATER.format("positions in nm"), "its comment says 'nm'"),
        ("x.xyz", WATER.format("") + "H 3 3 3\n", "Expected xyz header"),
        ("x.xyz", WATER.format("") + "\n" + WATER.format(""), "line 7 .* belongs to no frame"),
        ("x.xyz", WATER.format("isotopes_u=2"), "isotopes by 'isotopes_u'"),
        ("x.xyz", "1\nProperties=species:S:1:pos:R:3:mass_u:R:1\nH 0 0 0 2\n", "in the column 'mass_u'"),
        (
            "x.xyz",
            "1\nProperties=species:S:1:pos:R:3:my_charges:R:1\nH 0 0 0 1\n",
            "its column 'my_charges' is not read",
        ),
        ("coord", COORD.format(" angs", ""), r"'\$coord angs', and ASE reads '\$coord' in Bohr only"),
        ("coord", COORD.format("", "$chrg 1\n"), r"the group '\$chrg 1'"),
        ("coord", COORD.format("", "$isotopes\n h 2\n"), r"the group '\$isotopes'"),
        ("x.com", GAUSSIAN.format(" units=(au,rad)", ""), r"its route has 'units=\(au,rad\)'"),
        ("x.com", GAUSSIAN.format(" freq=readisotopes", ""), "its route has 'readisotopes'"),
        ("x.com", GAUSSIAN.format("", " 0"), "is not the symbol of an element with three"),
        ("x.sdf", MOL.format(" 0", "  0", "") + "> <total charge>\n1\n\n$$$$\n", "its key 'total charge'"),
        ("x.pdb", pdb(" H+"), r"has '\+' in columns 79 and 80, which is no charge"),
        ("x.pdb", pdb(""), "has no element in columns 77 and 78"),
        ("x.pdb", pdb("H").replace("HETATM    2", "hetatm    2"), "does not begin with the name of a record"),
        ("x.cif", CIF_WITH.format("_atom_site_calc_flag", "d", "dum"), "it has dummy atoms"),
        ("x.cif", CIF_WITH.format("_atom_site_disorder_group", 1, 2), "alternative positions of atoms"),
        ("x.cif", CIF_WITH.format("_atom_site_attached_hydrogens", 1, 0), "hydrogen atoms without positions"),
        ("POSCAR", "x\n1\n9 0 0\n0 9 0\n0 0 9\nO\n1\nDirect\n0 0 0\n0 0 .5\n", "it has 2 lines of atoms"),
        (
            "x.nwi",
            "geometry units au\nO 0 0 0\nend\n",
            "'nwchem-in' is not read; legal formats are xyz and extxyz, CIF",
        ),
    ],
)
def test_data_that_ase_ignores_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, name, text)


@pytest.mark.parametrize(
    "words",
    [
        "charge_state=1", "charges=1", "total_charge_e=1", "Qnet=1", "q_mol=1", "cation=T", "n_electrons=9", "nalpha=2",
        "two_S=2", "spin_s=0.5", "spin_moment=1", "magnetization=1", "tot_mag=1", "ms2=1", "triplet=1", "nspin=2",
        "is_radical=T", """config='{"charge": 1}'""", 'label="spin: 3"',
    ],
)  # fmt: skip
def test_an_unknown_key_of_charge_or_spin_is_refused_by_name(tmp_path: Path, words: str) -> None:
    with pytest.raises(ConfigError, match=f"its key '{words.partition('=')[0]}.*tells of charge or spin"):
        read(tmp_path, "x.xyz", WATER.format(words))


@pytest.mark.parametrize(
    "comment",
    [
        "charge_state=0", "n_electrons=10", "nalpha=5", "nspin=1", "magnetization=0.0", 'initial_charges="-1 0.5 0.5"',
        "charge_model=qeq", "mulliken_charges='-1 0 0'", "spin_polarization=none", "radical=F", "location=1", "0 1",
        "energy_unit=au forces_unit=Hartree/Bohr", "units=angstrom", "Au", "exact_mass=18.01", "triplet_energy=3.2",
        "5", "electronic_energy=-76.3", "isotopes=natural", 'center_of_mass="0 0 0"', "i = 12, time = 6.0, E = -5.07",
    ],
)  # fmt: skip
def test_what_says_nothing_of_charge_spin_and_units_is_taken(tmp_path: Path, comment: str) -> None:
    (atoms,) = read(tmp_path, "x.xyz", WATER.format(comment))
    assert read_electrons(atoms).is_plain


def test_heavy_hydrogen_of_a_cif_is_heavy(tmp_path: Path) -> None:
    assert read(tmp_path, "x.cif", CIF.format("D"))[0].get_masses()[1] == pytest.approx(2.014, abs=1e-3)


@pytest.mark.parametrize("column", ["Mass", "MASSES", "atomic_mass"])
def test_a_column_of_masses_has_many_names(tmp_path: Path, column: str) -> None:
    text = f"2\nProperties=species:S:1:pos:R:3:{column}:R:1\nO 0 0 0 16\nH 0 0 1 2\n"
    assert read(tmp_path, "x.xyz", text)[0].get_masses().tolist() == [16, 2]


@pytest.mark.parametrize("key", ["Charge", "CHARGE", "q", "mol_charge", "Net-Charge", "total charge", "formal_charge"])
def test_a_charge_has_many_names(tmp_path: Path, key: str) -> None:
    (atoms,) = read(tmp_path, "x.xyz", WATER.format(f'"{key}"=1'))
    assert read_electrons(atoms).charge == 1
    assert atoms.get_initial_charges().sum() == pytest.approx(1)
    (tmp_path / "y.xyz").write_text(WATER.format(f'"{key}"=1'))
    (plain,) = build_systems(FileSystem(path=str(tmp_path / "y.xyz"), ignore_charge=True)).values()
    assert read_electrons(plain).is_plain


@pytest.mark.parametrize("words", ["uhf=2", "n_unpaired=2", "Spin=3", "UHF=2", "num_unpaired_electrons=2", "magmom=2"])
def test_spin_has_many_names(tmp_path: Path, words: str) -> None:
    assert read_electrons(read(tmp_path, "x.xyz", WATER.format(words))[0]).unpaired == 2


@pytest.mark.parametrize(
    ("name", "text", "charge", "unpaired"),
    [
        ("coord", "$coord\n 0 0 0 o\n 0 0 1.8 h\n$eht charge=1 unpaired=2\n$end\n", 1, 2),
        ("coord", "$coord\n 0 0 0 o\n 0 0 1.8 h\n$end\n", 0, 0),
        ("x.com", "#p hf\n\nt\n\n-1 2\nO 0.0 0.0 0.0\nH 0.0 0.0 1.0\n\n", -1, 1),
        ("x.com", "#p hf\n\nt\n\n0 1\nO 0.0 0.0 0.0\nH 0.0 0.0 1.0\n\n", 0, 0),
    ],
)
def test_inputs_of_programs_tell_charge_and_spin(
    tmp_path: Path, name: str, text: str, charge: int, unpaired: int
) -> None:
    found = read_electrons(read(tmp_path, name, text)[0])
    assert (found.charge, found.unpaired) == (charge, unpaired)


def test_a_count_of_atoms_takes_no_memory(tmp_path: Path) -> None:
    text = "x\n1.0\n9 0 0\n0 9 0\n0 0 9\nO\n200000000\nDirect\n0 0 0\n"
    started = time.perf_counter()
    with pytest.raises(ConfigError, match=r"reading it as vasp would take more than 1\.0 GiB"):
        read(tmp_path, "POSCAR", text)
    assert time.perf_counter() - started < 5


def test_a_file_of_the_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match="it is empty"):
        build_systems(FileSystem(path="/proc/self/mounts", name="x"))


@pytest.mark.parametrize(("place", "same"), [("1.0 0 1e-5", True), ("0.99999 0 0", True), ("0.02 0 0", False)])
def test_atoms_in_one_place_of_a_crystal_are_refused(tmp_path: Path, place: str, same: bool) -> None:
    path = tmp_path / "x.cif"
    path.write_text(CIF.format("H").replace("0 0 0.2", place))
    if same:
        with pytest.raises(ValueError, match="its atoms 0 and 1 are in one place"):
            read_declared(str(path), "cif")
    else:
        read_declared(str(path), "cif")


def test_a_column_of_charges_that_are_no_numbers_is_refused(tmp_path: Path) -> None:
    text = "1\nProperties=species:S:1:pos:R:3:charge:R:1\nO 0 0 0 NaN\n"
    with pytest.raises(ConfigError, match=r"NaN|nan|finite"):
        read(tmp_path, "x.xyz", text)


def xyz(comment: str, *lines: str) -> str:
    return "\n".join([str(len(lines)), comment, *lines]) + "\n"


POSCAR = "x\n{}\n{}\n0 9 0\n0 0 9\n{}\n{}\nDirect\n0 0 0\n0 0 .2\n"
CHARGED = CIF.replace("O1 O 0 0 0\nH1 {} 0 0 0.2\n", "O1 {} 0 0 0\nH1 {} 0 0 0.2\n")
BARE = CIF.replace("_atom_site_type_symbol\n", "").replace("O1 O 0 0 0\nH1 {} 0 0 0.2\n", "{} 0 0 0\n")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.xyz", xyz("", "O 0 0 1_0"), "number '1_0' is not written in plain digits"),
        ("x.xyz", xyz("", "O 0 0 １"), "is not written in plain digits"),
        ("x.xyz", xyz('Lattice="9_0 0 0 0 9 0 0 0 9"', "O 0 0 1"), "number '9_0'"),
        ("x.xyz", xyz("", "O 0 0 1 -0.8"), "has 5 words, and 4 are named"),
        ("x.xyz", xyz("Properties=species:S:1:pos:R:3:coords:R:3", "O 0 0 1 0 0 2"), "give different positions"),
        ("x.xyz", xyz("Properties=species:S:1:pos:R:3:element:S:1", "O 0 0 1 N"), "species and element differ"),
        ("x.xyz", xyz("Properties=species:S:1:pos:R:3:Z:I:1", "O 0 0 1 7"), "species and Z differ"),
        ("x.xyz", xyz("Properties=species:S:1:pos", "O 0 0 1"), "is not of the form"),
        ("x.xyz", xyz('cell="9 0 0 0 9 0 0 0 9"', "O 0 0 1"), "the key 'cell', which ASE does not know"),
        ("x.xyz", xyz("periodic=true", "O 0 0 1"), "the key 'periodic'"),
        ("x.xyz", xyz("water cation H2O+", "O 0 0 0", "H 0 0 1", "H 0 1 0"), "gives a charge of the structure"),
        ("x.xyz", xyz("[NH4]+", "N 0 0 0", *(f"H 1 1 {z}" for z in range(4))), "gives a charge of the structure"),
        ("x.xyz", xyz("charge -1", "O 0 0 1"), "its word 'charge' has no value: write charge=…"),
        ("x.xyz", xyz("a=9 b=9 c=9 alpha=90 beta=90 gamma=90", "O 0 0 1"), "has a, b and c, which may be a cell"),
        ("x.xyz", xyz('tv="9 0 0"', "O 0 0 1"), "the key 'tv', which ASE does not know"),
        ("x.xyz", xyz("Properties=species:S:1:pos:R:3:ghost:L:1", "O 0 0 1 F", "H 0 0 2 T"), "marks atoms"),
        ("x.xyz", xyz("", "H1 0 0 1"), "'H1' is not the symbol of an element"),
        ("x.xyz", xyz("picometres", "O 0 0 1"), "'picometres', and ASE reads positions in Å"),
        ("POSCAR", POSCAR.format("1", "9 0 0 0", "O H", "1 1"), "a vector of its cell is '9 0 0 0'"),
        ("POSCAR", POSCAR.format("1", "9 0 0", "O H", "2"), "is not a number of atoms for each element"),
        ("x.cif", CHARGED.format("O2-", "H+"), "a total charge of -1"),
        ("x.cif", CIF_WITH.format("_atom_site_magn_moment", 1, 2), "_atom_site_magn_moment, which is not read"),
        ("x.cif", CIF_WITH.format("_atom_site_charge_model", 1, 2), "_atom_site_charge_model, which is not read"),
        ("x.cif", BARE.format("OW1"), "its label 'OW1' does not begin with the symbol of an element"),
        ("x.cif", BARE.format("CA1"), "its label 'CA1'"),
        ("x.cif", CIF.format("H").replace("0 0 0.2", "0 0 0_0.2"), "plain digits|can't read"),
        ("x.pdb", pdb("H").replace("HOH", "DOD"), "in the residue 'DOD'"),
        ("x.pdb", pdb("H").replace(" H1 ", " D1 "), "is that of an isotope"),
        ("x.pdb", "MTRIX1   2  1.000000  0.000000  0.000000        0.00000\n" + pdb("H"), "makes atoms by symmetry"),
        ("x.pdb", "LATTIC 1 2 3\n" + pdb("H"), "does not begin with the name of a record"),
        ("x.com", GAUSSIAN.format("", "").replace("H 0.0 0.0 1.0", "H 1 1.0"), "is not the symbol of an element"),
        ("coord", COORD.format("", "").replace("1.8 h", "1_8 h"), "number '1_8'"),
        ("coord", COORD.format("", "").replace("1.8 h", "1.8 h x"), "is not three numbers and the symbol"),
    ],
)  # fmt: skip
def test_what_stands_outside_the_known_words_of_a_format_is_refused(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    def take() -> None:
        for atoms in read(tmp_path, name, text):
            refuse_charge_and_spin(atoms)

    with pytest.raises((ConfigError, ValueError), match=message):
        take()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.xyz", xyz("Properties=species:S:1:pos:R:3:coords:R:3:Z:I:1:tag:S:1", "O 0 0 1 0 0 1 8 1_0")),
        ("x.xyz", xyz("periodic=false id=mol_1_0", "O 0 0 1")),
        ("x.xyz", xyz("made with Na+ and Cl- nearby, C60+", "O 0 0 1")),
        ("x.xyz", xyz("Properties=species:S:1:pos:R:3:ghost:L:1", "O 0 0 1 F")),
        ("POSCAR", POSCAR.format("1.0 1.0 1.0", "9 0 0", "O_s/abc H", "1 1")),
        ("x.cif", CHARGED.format("H1+", "H1-")),
        ("x.cif", CIF_WITH.format("_atom_site_Wyckoff_symbol", "a", "b")),
        ("x.cif", CIF_WITH.format("_atom_site_U_iso_or_equiv", 0.01, 0.02)),
        ("x.cif", BARE.format("O1A")),
        ("x.pdb", "REMARK 1 some\nMTRIX1   1  1.000000  0.000000  0.000000        0.00000    1\n" + pdb("H")),
        ("coord", COORD.format("", "").replace("1.8 h", "1.8 h f")),
    ],
)  # fmt: skip
def test_known_words_of_a_format_are_taken(tmp_path: Path, name: str, text: str) -> None:
    (atoms,) = read(tmp_path, name, text)
    refuse_charge_and_spin(atoms)
    assert len(atoms) in (1, 2)


def test_formal_charges_of_a_crystal_are_those_of_all_its_atoms(tmp_path: Path) -> None:
    """Each site stands for as many atoms as the symmetry makes of it."""
    text = CHARGED.format("Na+", "Cl-").replace("'P 1'", "'P -1'").replace("H1 Cl- 0 0 0.2", "H1 Cl- 0.1 0.2 0.3")
    (atoms,) = read(tmp_path, "x.cif", text)
    assert sorted(atoms.symbols) == ["Cl", "Cl", "Na"]
    assert read_electrons(atoms).charge == -1.0
