"""Calculators that take no time: an exact one, and ones whose forces are not the gradient of their energy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.geometry import find_mic

from mlff_exp.structures.systems import water_box


class Springs(Calculator):
    """Springs between all atoms of ethanol: a force field that is exact and takes no time, for others to spoil."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]
    start = molecule("CH3CH2OH")
    pairs: tuple[np.ndarray, ...] = np.triu_indices(len(start), k=1)
    lengths = start.get_all_distances()[pairs]
    stiffness = np.where(lengths < 1.6, 30.0, 1.0)  # eV/Å²; bonds, and what holds their angles

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), changes: Sequence[str] = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        i, j = self.pairs
        arrows = self.arrows()
        self.distances = np.linalg.norm(arrows, axis=1)
        longer = self.distances - self.lengths
        pulls = (self.stiffness * longer / self.distances)[:, None] * arrows
        forces = np.zeros((len(self.atoms), 3))
        np.add.at(forces, i, pulls)
        np.add.at(forces, j, -pulls)
        # As large as the total energy of a real one.
        self.results = {"energy": 0.5 * (self.stiffness * longer**2).sum() - 300, "forces": forces}
        self.spoil()

    def arrows(self) -> np.ndarray:
        i, j = self.pairs
        arrows: np.ndarray = self.atoms.positions[j] - self.atoms.positions[i]
        return arrows

    def spoil(self) -> None:
        pass


class ScaledForces(Springs):
    def spoil(self) -> None:
        self.results["forces"] *= 1.02


class Swirl(Springs):
    """Forces of its own: springs, and a rotation about the centre, which adds up to nothing and has a curl."""

    def spoil(self) -> None:
        arms = self.atoms.positions - self.atoms.positions.mean(axis=0)
        self.results["forces"] += np.cross([0.0, 0.0, 0.01], arms)


class RoundedSprings(Springs):
    """Springs whose energy and forces are numbers of FP32, as of a network that computes in FP32."""

    total = -1000.0  # eV

    def spoil(self) -> None:
        super().spoil()
        self.results["energy"] = float(np.float32(self.results["energy"] + 300 + self.total))
        self.results["forces"] = self.results["forces"].astype(np.float32).astype(float)


class BoxOfSprings(Springs):
    """Springs between near atoms of a box of eight water molecules, across its boundaries too; its bonds want 1 Å."""

    start = water_box(8)
    distances = start.get_all_distances(mic=True)
    pairs = np.nonzero(np.triu(distances < 3.0, k=1))
    lengths = distances[pairs]
    stiffness = np.where(lengths < 1.1, 30.0, 1.0)
    lengths = np.where(lengths < 1.1, 1.0, lengths)

    def arrows(self) -> np.ndarray:
        return find_mic(super().arrows(), self.start.cell, pbc=True)[0]
