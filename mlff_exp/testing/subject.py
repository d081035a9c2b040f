"""A force field in FP64 with structures to try it on, and how far its own rounding lets results differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms
from ase.build import molecule
from ase.data import atomic_numbers, covalent_radii
from torch import nn

from mlff_exp.engines import Engine, EngineError, make_engine
from mlff_exp.models import Capabilities, ForceField, as_force_field, has_own_forces
from mlff_exp.structures import AtomicBatch, collate

Array = npt.NDArray[np.float64]

DISPLACEMENT_ANG = 0.05  # of each coordinate, so that no force vanishes by symmetry and no molecule is flat
N_ROUNDING = 4  # displaced structures on which the FP32 of the model is compared with its FP64
ROUNDINGS = 4.0  # that a result may differ by
LEAST_EV, LEAST_EV_PER_ANG = 1e-8, 1e-8  # what FP64 rounds in sums of large energies
GAP_ANG = 2.5  # between the images of a molecule in a cell
MOLECULES = ("CH3CH2OH", "H2O", "NH3", "CH4", "N2", "O2", "NaCl", "Si2H6")  # the first whose elements are known
BOND = 1.2  # distance in a made-up cluster, in sums of covalent radii
N_CLUSTER = 6


@dataclass(frozen=True)
class Tolerance:
    """The largest differences that rounding explains.

    Attributes:
        energy_ev: of the energy of a system.
        force_ev_per_ang: of a component of a force.
    """

    energy_ev: float
    force_ev_per_ang: float


@dataclass(frozen=True)
class Subject:
    """What the properties are tried on.

    Attributes:
        engine: FP64, with stress unless the force field has forces of its own.
        structures: displaced from their minima; the first is the given one, and a molecule is followed by itself in a
            periodic cell if the force field takes one.
        tolerance: the larger of what FP64 rounds and of four times what the model's own FP32 differs from its FP64.
        own_forces: whether the force field returns forces of its own.
        seed: random seed of all that is drawn.
    """

    engine: Engine
    structures: tuple[Atoms, ...]
    tolerance: Tolerance
    own_forces: bool
    seed: int

    @property
    def rng(self) -> np.random.Generator:
        """A new generator, so that a property draws the same whichever were tried before."""
        return np.random.default_rng(self.seed)

    def batch(self, systems: Sequence[Atoms], **options: Any) -> AtomicBatch:
        """Collate systems for the engine, with the options of `collate`."""
        return collate(
            systems, self.engine.cutoff, near=self.engine.shorter_cutoffs, device=self.engine.device, **options
        )

    def evaluate(self, *systems: Atoms, **options: Any) -> list[tuple[float, Array]]:
        """Return energy (eV) and forces ([n_atoms, 3] eV/Å) of each system; all are evaluated in one batch."""
        return _evaluate(self.engine, self.batch(systems, **options), systems)


def prepare(
    force_field: nn.Module | ForceField, atoms: Atoms | None = None, *, seed: int = 0, device: str = "cpu"
) -> Subject:
    """Make the engine and the structures for a force field.

    Args:
        force_field: a `ForceField` or a `GraphForceField`; it is not changed.
        atoms: a structure of elements that it knows; if None, a small molecule or a cluster of them.
        seed: random seed.
        device: where it is evaluated.

    Raises:
        TypeError: it is no force field.
        ValueError: it does not know an element of the structure, or does not run in FP64.
    """
    model = as_force_field(force_field)  # type: ignore[arg-type]
    own, can = has_own_forces(model), getattr(model, "capabilities", Capabilities())
    atoms = known_structure(model) if atoms is None else atoms.copy()
    model.check_elements(atoms.symbols)
    rng = np.random.default_rng(seed)
    structures = [_displaced(atoms, rng)]
    if can.periodic and not atoms.pbc.any():
        structures.append(_in_cell(structures[0]))
    try:
        engine = make_engine(model, "eager", "fp64", torch.device(device), stress=not own)
    except EngineError as error:
        raise ValueError(f"the properties are tried in FP64: {error}") from error
    rounding = Tolerance(LEAST_EV, LEAST_EV_PER_ANG)
    if "fp32" in can.precisions:
        coarse = make_engine(model, "eager", "fp32", torch.device(device))
        rounding = _rounding(engine, coarse, [_displaced(each, rng) for each in structures for _ in range(N_ROUNDING)])
    return Subject(engine, tuple(structures), rounding, own, seed)


def known_structure(model: ForceField) -> Atoms:
    """A small molecule of elements that a force field knows, or else a cluster of them without chemistry."""
    known = model.elements
    for name in MOLECULES:
        found = molecule(name)
        if known is None or set(found.symbols) <= set(known):
            return found
    assert known is not None
    symbols = [known[index % len(known)] for index in range(N_CLUSTER)]
    spacing = 2 * BOND * max(covalent_radii[atomic_numbers[symbol]] for symbol in symbols)
    return Atoms(symbols, spacing * np.argwhere(np.ones((1, 2, 3))))


def _displaced(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    moved = atoms.copy()
    moved.positions += rng.normal(scale=DISPLACEMENT_ANG, size=moved.positions.shape)
    return moved


def _in_cell(atoms: Atoms) -> Atoms:
    """A molecule in a skewed cell, whose images it feels."""
    extent = np.ptp(atoms.positions, axis=0) + GAP_ANG
    cell = np.diag(extent) + np.tril(np.full((3, 3), 0.3), -1)
    return Atoms(atoms.numbers, atoms.positions, cell=cell, pbc=True)


def _rounding(engine: Engine, coarse: Engine, structures: Sequence[Atoms]) -> Tolerance:
    energy_ev, force_ev_per_ang = LEAST_EV, LEAST_EV_PER_ANG
    for atoms in structures:
        batch = collate([atoms], engine.cutoff, near=engine.shorter_cutoffs, device=engine.device)
        ((fine, fine_forces), (energy, forces)) = (_evaluate(each, batch, [atoms])[0] for each in (engine, coarse))
        energy_ev = max(energy_ev, ROUNDINGS * abs(energy - fine))
        force_ev_per_ang = max(force_ev_per_ang, ROUNDINGS * float(np.abs(forces - fine_forces).max()))
    return Tolerance(energy_ev, force_ev_per_ang)


def _evaluate(engine: Engine, batch: AtomicBatch, systems: Sequence[Atoms]) -> list[tuple[float, Array]]:
    prediction = engine(batch)
    energies, forces = prediction.energy.tolist(), batch.per_system(prediction.forces).cpu().numpy()
    return [(energies[index], forces[index, : len(atoms)]) for index, atoms in enumerate(systems)]
