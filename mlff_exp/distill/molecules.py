"""The molecules on which a student is trained, and those on which it is validated.

Sources: the first 5,000 structures of the NCI open database as RDKit ships them (`Data/NCI/first_5K.smi`; the database
is public domain), some with hydrogen replaced by fluorine, which the database lacks; a list of small molecules in this
file; and analogues of the training molecules, with hydrogens replaced by small groups.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ase.data import atomic_numbers

from mlff_exp.config import ConfigError

Split = Literal["training", "analogues", "validation"]
ELEMENTS = frozenset({"H", "C", "N", "O", "F", "S", "Cl"})
MAX_ATOMS = 32
VALIDATION_SHARE = 0.13
FLUORINATED_SHARE = 0.12
SUBSTITUENTS = ("C", "N", "O", "F", "S", "Cl")

# Small molecules that the NCI list lacks, and the systems that this project measures. All of them are training
# molecules, and so are all molecules that share a scaffold with one of them.
SMALL = """
[H][H] N#N [C-]#[O+] O=C=O N=[N+]=[N-] [N-]=[N+]=O O N S F Cl C#N C C#C C=C CC CO CN CS CF CCl C=O CC=O OO NN
FF ClCl OF OCl NCl O=S=O S=C=S O=C=S C=S N#CC#N CC#N OC=O CC(=O)O CCO COC CCC C1CC1 C=CC C#CC C=C=C CC(C)=O
CC(N)=O NC=O NC(N)=O COC=O CON NO C1CO1 C1CN1 C1CS1 CSC CS(C)=O CS(C)(=O)=O CCS CSSC FC(F)F FC(F)(F)F
ClC(Cl)Cl ClC(Cl)(Cl)Cl FCCl FC=C ClC=C FCC ClCC C=CC=C CC(C)C CCCC C1CCC1 C1CCCCC1 c1ccccc1 c1ccncc1 c1ccoc1
c1ccsc1 c1cc[nH]c1 c1c[nH]cn1 c1cnccn1 Fc1ccccc1 Clc1ccccc1 Oc1ccccc1 Nc1ccccc1 Cc1ccccc1 C[N+](=O)[O-] CON=O
CNC CN(C)C CC(C)O NCC(=O)O CC(N)C(=O)O CC(=O)Oc1ccccc1C(=O)O CN1C=NC2=C1C(=O)N(C)C(=O)N2C
"""


@dataclass(frozen=True)
class Molecule:
    """A molecule of the list.

    Attributes:
        smiles: canonical SMILES.
        key: first block of the InChIKey: the connectivity without stereochemistry.
        scaffold: Murcko scaffold; for a molecule without rings, its skeleton of heavy atoms.
        n_atoms: number of atoms, hydrogen included.
    """

    smiles: str
    key: str
    scaffold: str
    n_atoms: int


def molecule_library() -> dict[Split, list[Molecule]]:
    """Return all molecules by split, each once, in a fixed order; no scaffold is in both training and validation.

    The hash of a scaffold decides on its split, so that adding a molecule does not move others.

    Raises:
        ConfigError: RDKit is not installed.
    """
    small = list(_described(SMALL.split()))
    seen = {molecule.scaffold for molecule in small}
    split: dict[Split, list[Molecule]] = {"training": small, "analogues": [], "validation": []}
    keys = {molecule.key for molecule in small}

    def new(candidates: Iterable[str]) -> Iterator[tuple[Split, Molecule]]:
        for molecule in _described(candidates):
            if molecule.key not in keys:
                keys.add(molecule.key)
                unseen = molecule.scaffold not in seen and hash_fraction(molecule.scaffold) < VALIDATION_SHARE
                yield "validation" if unseen else "training", molecule

    for side, molecule in new(_nci()):
        split[side].append(molecule)
    # Analogues are used for training only, so that validation does not depend on them.
    split["analogues"] = [molecule for side, molecule in new(_analogues(split["training"])) if side == "training"]
    return split


def hash_fraction(name: str) -> float:
    """Return a number in [0, 1) that depends only on a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def _nci() -> Iterator[str]:
    rdkit = _rdkit()
    path = Path(rdkit.RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
    for line in path.read_text(encoding="utf-8").splitlines():
        smiles = line.split()[0]
        yield smiles
        molecule = _parse(smiles)
        if molecule is not None and hash_fraction(smiles) < FLUORINATED_SHARE:
            yield _substituted(molecule, smiles, ("F",))


def _analogues(parents: Iterable[Molecule]) -> Iterator[str]:
    for parent in parents:
        yield _substituted(_parse(parent.smiles), f"{parent.smiles} analogue", SUBSTITUENTS)


def _substituted(molecule: Any, name: str, elements: Sequence[str]) -> str:
    """Replace one or two hydrogens on carbon by an element with its hydrogens; the name decides which."""
    chem = _rdkit().Chem
    with_hydrogens = chem.AddHs(molecule)
    hydrogens = [match[1] for match in with_hydrogens.GetSubstructMatches(chem.MolFromSmarts("[#6][H]"))]
    for turn in range(2 if len(hydrogens) > 6 else 1):
        if hydrogens:
            index = hydrogens.pop(int(hash_fraction(f"{name} {turn}") * len(hydrogens)))
            hydrogen = with_hydrogens.GetAtomWithIdx(index)
            element = elements[int(hash_fraction(f"{name} {turn} element") * len(elements))]
            hydrogen.SetAtomicNum(atomic_numbers[element])
            hydrogen.SetNoImplicit(False)
    return str(chem.MolToSmiles(chem.RemoveHs(with_hydrogens)))


def _described(lines: Iterable[str]) -> Iterator[Molecule]:
    """Yield molecules for which the teacher is reliable: closed shell, neutral, of known elements, not too large."""
    chem = _rdkit().Chem
    murcko: Any = importlib.import_module("rdkit.Chem.Scaffolds.MurckoScaffold")

    for smiles in lines:
        molecule = _parse(smiles)
        if molecule is None or chem.GetFormalCharge(molecule) != 0 or len(chem.GetMolFrags(molecule)) > 1:
            continue
        with_hydrogens = chem.AddHs(molecule)
        elements = {atom.GetSymbol() for atom in with_hydrogens.GetAtoms()}
        radicals = sum(atom.GetNumRadicalElectrons() for atom in with_hydrogens.GetAtoms())
        if not elements <= ELEMENTS or radicals or not 2 <= with_hydrogens.GetNumAtoms() <= MAX_ATOMS:
            continue
        scaffold = murcko.GetScaffoldForMol(molecule)
        if scaffold.GetNumAtoms() == 0:
            scaffold = murcko.MakeScaffoldGeneric(molecule)
        yield Molecule(
            smiles=str(chem.MolToSmiles(molecule)),
            key=str(chem.MolToInchiKey(molecule))[:14],
            scaffold=str(chem.MolToSmiles(scaffold)),
            n_atoms=with_hydrogens.GetNumAtoms(),
        )


def _parse(smiles: str) -> Any:
    """Return an RDKit molecule, or None if RDKit can't parse the SMILES."""
    rdkit = _rdkit()
    with rdkit.rdBase.BlockLogs():
        return rdkit.Chem.MolFromSmiles(smiles)


def _rdkit() -> Any:
    try:
        import rdkit
        from rdkit import Chem, RDConfig, rdBase  # noqa: F401 (submodules, made attributes)
    except ImportError as error:
        raise ConfigError("task=distill needs RDKit for its molecules: pip install 'mlff-exp[distill]'") from error
    return rdkit
