"""The recorded starts of one system, their metrics and verdict, and their columns in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from mlff_exp.config import Gate
from mlff_exp.dynamics import FloatArray, Trajectory, is_lattice, lindemann_ratio
from mlff_exp.measure import ensemble_conservation
from mlff_exp.results import Fault, FaultKind, ResultError, Verdict, judge_gate, qualified
from mlff_exp.structures import Expected, array_names, read_arrays

MIN_FRAMES = 10  # the least number of frames for a fit
BONDS, LATTICE = "max_bond_change_ang", "lindemann_ratio"
# A system has bonds that can be followed, or a lattice: each of the two takes the place of the other, with the reason.
INSTEAD = {
    BONDS: (LATTICE, "the system has no covalent bonds, and lindemann_ratio judges it"),
    LATTICE: (BONDS, "the system has bonds, and max_bond_change_ang judges it"),
}
PER_START = {  # columns of the file that hold a number for each frame and start, by the name of the attribute
    "potential": "potential_energy_ev",
    "kinetic": "kinetic_energy_ev",
    "temperature": "temperature_k",
    "displacement": "displacement_ang",
    "bond_change": "bond_change_ang",
    "momentum": "momentum_error",
    "lindemann": "lindemann_ratio",
}
PER_SYSTEM = {"n_atoms": "n_atoms", "minimum_energy": "minimum_energy_ev", "has_bonds": "has_bonds"}
SYSTEMS = "systems"
COLUMNS = {
    SYSTEMS: Expected("str", ("systems",)),
    "times_ps": Expected("float64", ("frames",)),
    # A trajectory that blows up holds NaN.
    **{column: Expected("float64", ("frames", "starts"), is_finite=False) for column in PER_START.values()},
    "n_atoms": Expected("int64", ("systems",)),
    "minimum_energy_ev": Expected("float64", ("systems",)),
    "has_bonds": Expected("bool", ("systems",)),
}


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
        lindemann: [n_frames, n_starts] rms distance of the atoms from their lattice sites, over the distance of nearest
            neighbours; NaN for a system that is not judged by its lattice.
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
    lindemann: FloatArray

    @staticmethod
    def of(
        trajectory: Trajectory, first: int, n_starts: int, name: str, relaxed: Atoms, minimum_energy: float, bonds: bool
    ) -> Ensemble:
        """Take the starts of one system out of a trajectory of several systems.

        Args:
            trajectory: the frames of all systems.
            first: index of the system's first start.
            n_starts: the number of its starts.
            name: name of the system.
            relaxed: the system at its minimum.
            minimum_energy: potential energy of its minimum, eV.
            bonds: whether it has bonds.
        """
        part = slice(first, first + n_starts)
        recorded = [attribute for attribute in PER_START if attribute != "lindemann"]
        columns = {attribute: getattr(trajectory, attribute)[:, part] for attribute in recorded}
        columns["lindemann"] = np.full_like(columns["displacement"], np.nan)
        if is_lattice(relaxed):
            for column in range(n_starts):
                positions = trajectory.positions[:, first + column, : len(relaxed)]
                columns["lindemann"][:, column] = lindemann_ratio(relaxed, positions)
        return Ensemble(name, len(relaxed), minimum_energy, bonds, trajectory.times_ps, **columns)

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
        if np.isfinite(self.lindemann[finite]).any():
            metrics[LATTICE] = float(self.lindemann[finite].max())
        return metrics

    def below_minimum(self) -> list[Fault]:
        """Return a fault for each start whose mean energy is below that of the minimum."""
        total = self.potential + self.kinetic
        finite = total[np.isfinite(total).all(axis=1)]
        if len(finite) == 0:
            return []
        thermal = finite.mean(axis=0) - self.minimum_energy
        return [
            Fault(
                FaultKind.NOT_RELAXED,
                f"replica {replica} has {-energy:.3g} eV less on average than the minimum that it was relaxed to: "
                "there is a lower one, so percentages of the thermal energy can't be measured",
            )
            for replica, energy in enumerate(thermal)
            if energy <= 0
        ]

    def verdict(
        self, metrics: Mapping[str, float], gate: Gate, faults: list[Fault], inapplicable: Mapping[str, str]
    ) -> Verdict:
        """Judge the ensemble by a gate. A GO over too short a time has a reason that says so.

        Args:
            metrics: values by name, of the ensemble and of other checks.
            gate: the limits.
            faults: events that make a NO-GO.
            inapplicable: metrics that have no meaning for this run, each with the reason.
        """
        excused = {**replaced_metrics(metrics, gate), **inapplicable}
        return qualified(judge_gate(metrics, gate, faults, self.n_starts, excused), float(self.times_ps[-1]))


def replaced_metrics(metrics: Mapping[str, float], gate: Gate) -> dict[str, str]:
    """Return the criteria that were not measured and that another one takes the place of, each with the reason.

    The other one must have been measured, and the gate must ask for it: nothing is passed by measuring less.

    Args:
        metrics: of one system, by name.
        gate: to judge by.
    """
    return {
        metric: reason
        for metric, (other, reason) in INSTEAD.items()
        if metric not in metrics and other in metrics and other in gate.criteria
    }


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
    if not path.exists():
        raise ResultError(f"{path} does not exist: task=nve writes it at the end of a run")
    try:
        missing = [name for name in COLUMNS if name not in array_names(path)]
        if missing:
            raise ResultError(f"{path} holds no {', '.join(missing)}: an earlier version wrote it; integrate again")
        columns = read_arrays(path, COLUMNS, allow_others=True)
    except ResultError:
        raise
    except ValueError as error:
        raise ResultError(f"{path} is damaged: {error}") from error
    names, times_ps = columns[SYSTEMS], columns["times_ps"]
    n_columns = columns["potential_energy_ev"].shape[-1]
    if n_columns == 0 or len(names) == 0 or n_columns % len(names):
        raise ResultError(f"{path} is damaged: its {n_columns} starts are not of {len(names)} systems")
    if len(times_ps) == 0 or (np.diff(times_ps) <= 0).any():
        raise ResultError(f"{path} is damaged: times_ps does not go up")
    if (columns["n_atoms"] < 1).any():
        raise ResultError(f"{path} is damaged: n_atoms holds a number below 1")
    n_starts = n_columns // len(names)
    ensembles = []
    for index, name in enumerate(names):
        part = slice(index * n_starts, (index + 1) * n_starts)
        of_starts = {attribute: columns[column][:, part] for attribute, column in PER_START.items()}
        n_atoms, minimum, bonds = (columns[column][index].item() for column in PER_SYSTEM.values())
        ensembles.append(Ensemble(str(name), n_atoms, minimum, bonds, times_ps, **of_starts))
    return ensembles
