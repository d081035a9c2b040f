"""The recorded starts of one system, their metrics and verdict, and their columns in a file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlff_exp.common import refuse_irregular
from mlff_exp.config import Gate
from mlff_exp.dynamics import FloatArray, Trajectory
from mlff_exp.measure import ensemble_conservation
from mlff_exp.results import ResultError, Verdict, judge_gate, qualified

MIN_FRAMES = 10  # the least number of frames for a fit
BONDS = "max_bond_change_ang"
PER_START = {  # columns of the file that hold a number for each frame and start, by the name of the attribute
    "potential": "potential_energy_ev",
    "kinetic": "kinetic_energy_ev",
    "temperature": "temperature_k",
    "displacement": "displacement_ang",
    "bond_change": "bond_change_ang",
    "momentum": "momentum_error",
}
PER_SYSTEM = {"n_atoms": "n_atoms", "minimum_energy": "minimum_energy_ev", "has_bonds": "has_bonds"}
SYSTEMS = "systems"


@dataclass(frozen=True)
class Ensemble:
    """Independent starts of one system.

    Attributes:
        name: of the system.
        n_atoms: of the system.
        minimum_energy: potential energy of the minimum, eV.
        has_bonds: whether it has a bond whose length can be followed.
        times_ps: [n_frames].
        potential, kinetic: [n_frames, n_starts] eV.
        temperature: [n_frames, n_starts] K on internal degrees of freedom.
        displacement: [n_frames, n_starts] largest distance of an atom from its start, Å.
        bond_change: [n_frames, n_starts] largest change of the length of a bond, Å.
        momentum: [n_frames, n_starts] ‖Σ p‖ / Σ ‖p‖.
    """

    name: str
    n_atoms: int
    minimum_energy: float
    has_bonds: bool
    times_ps: FloatArray
    potential: FloatArray
    kinetic: FloatArray
    temperature: FloatArray
    displacement: FloatArray
    bond_change: FloatArray
    momentum: FloatArray

    @staticmethod
    def of(
        trajectory: Trajectory, first: int, n_starts: int, name: str, n_atoms: int, minimum_energy: float, bonds: bool
    ) -> Ensemble:
        """Take the starts of one system out of a trajectory of several systems.

        Args:
            trajectory: the frames of all systems.
            first: index of the system's first start.
            n_starts: the number of its starts.
            name: name of the system.
            n_atoms: number of its atoms.
            minimum_energy: potential energy of its minimum, eV.
            bonds: whether it has bonds.
        """
        part = slice(first, first + n_starts)
        columns = {attribute: getattr(trajectory, attribute)[:, part] for attribute in PER_START}
        return Ensemble(name, n_atoms, minimum_energy, bonds, trajectory.times_ps, **columns)

    @property
    def n_starts(self) -> int:
        """The number of starts."""
        return int(self.potential.shape[1])

    def metrics(self, temperature_k: float) -> dict[str, float]:
        """Compute the metrics of conservation, temperature, bonds and momentum.

        Args:
            temperature_k: the temperature at which the starts were prepared, K.

        Returns:
            Values by name; empty if there are fewer than `MIN_FRAMES` finite frames.
        """
        total = self.potential + self.kinetic
        finite = np.isfinite(total).all(axis=1)
        if finite.sum() < MIN_FRAMES:
            return {}  # the trajectory blew up too early for a fit; the verdict names that fault
        metrics = ensemble_conservation(
            self.times_ps[finite],
            total[finite],
            self.temperature[finite],
            self.n_atoms,
            self.minimum_energy,
            temperature_k,
        )
        metrics["max_displacement_ang"] = float(self.displacement[finite].max())
        metrics["momentum_error"] = float(self.momentum[finite].max())
        if self.has_bonds:
            metrics[BONDS] = float(self.bond_change[finite].max())
        return metrics

    def below_minimum(self) -> list[str]:
        """Return a fault for each start whose mean energy is below that of the minimum."""
        total = self.potential + self.kinetic
        finite = total[np.isfinite(total).all(axis=1)]
        if len(finite) == 0:
            return []
        thermal = finite.mean(axis=0) - self.minimum_energy
        return [
            f"replica {replica} has {-energy:.3g} eV less on average than the minimum that it was relaxed to: there is "
            "a lower one, so percentages of the thermal energy can't be measured"
            for replica, energy in enumerate(thermal)
            if energy <= 0
        ]

    def verdict(
        self, metrics: Mapping[str, float], gate: Gate, faults: list[str], inapplicable: Mapping[str, str]
    ) -> Verdict:
        """Judge the ensemble by a gate. A GO over too short a time has a reason that says so.

        Args:
            metrics: values by name, of the ensemble and of other checks.
            gate: the limits.
            faults: events that make a NO-GO.
            inapplicable: metrics that have no meaning for this run, each with the reason.
        """
        return qualified(judge_gate(metrics, gate, faults, self.n_starts, inapplicable), float(self.times_ps[-1]))


def ensemble_columns(ensembles: list[Ensemble]) -> dict[str, FloatArray]:
    """Make the columns of a file from which `load_ensembles` reads the ensembles.

    Args:
        ensembles: ensembles with the same number of starts.
    """
    columns = {
        column: np.concatenate([getattr(each, attribute) for each in ensembles], axis=1)
        for attribute, column in PER_START.items()
    }
    columns |= {
        column: np.array([getattr(each, attribute) for each in ensembles]) for attribute, column in PER_SYSTEM.items()
    }
    return {SYSTEMS: np.array([each.name for each in ensembles]), "times_ps": ensembles[0].times_ps, **columns}


def load_ensembles(path: Path) -> list[Ensemble]:
    """Read ensembles from the file of a trajectory.

    Raises:
        ResultError: the file is missing or damaged, or an earlier version wrote it without some of the columns.
    """
    needed = [SYSTEMS, "times_ps", *PER_START.values(), *PER_SYSTEM.values()]
    try:
        refuse_irregular(path, None)
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            missing = [name for name in needed if name not in file.files]
            if missing:
                raise ResultError(f"{path} holds no {', '.join(missing)}: an earlier version wrote it; integrate again")
            columns = {name: file[name] for name in needed}
    except FileNotFoundError:
        raise ResultError(f"{path} does not exist: task=nve writes it at the end of a run") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ResultError(f"{path} is damaged: {error}") from error
    names, times_ps = columns[SYSTEMS], columns["times_ps"]
    n_columns = columns["potential_energy_ev"].shape[-1]
    shapes = {columns[name].shape for name in PER_START.values()} | {(len(times_ps), n_columns)}
    per_system = {columns[name].shape for name in PER_SYSTEM.values()} | {(len(names),)}
    if len(shapes) > 1 or len(per_system) > 1 or n_columns == 0 or n_columns % max(1, len(names)):
        raise ResultError(f"{path} is damaged: its columns do not belong together")
    n_starts = n_columns // len(names)
    ensembles = []
    for index, name in enumerate(names):
        part = slice(index * n_starts, (index + 1) * n_starts)
        of_starts = {attribute: columns[column][:, part] for attribute, column in PER_START.items()}
        n_atoms, minimum, bonds = (columns[column][index].item() for column in PER_SYSTEM.values())
        ensembles.append(Ensemble(str(name), n_atoms, minimum, bonds, times_ps, **of_starts))
    return ensembles
