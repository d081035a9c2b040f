"""Any ASE calculator as an engine, and any engine as an ASE calculator.

A calculator becomes an engine so that teachers and other programs are measured as they are. An engine becomes a
calculator for ASE's optimisers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from mlff_exp.engines.prediction import Prediction
from mlff_exp.engines.protocol import Engine
from mlff_exp.structures import AtomicBatch, collate


class AseEngine:
    """Any ASE calculator as an engine, which loops over the systems of a batch and has its own precision.

    Args:
        calculator: an ASE calculator with energy and forces.

    Raises:
        ValueError: the calculator gives no energy or no forces. The message names it.
    """

    precision = "native"
    cutoff = 5.0  # Å, of the neighbour lists in batches; the calculator makes lists of its own
    shorter_cutoffs = ()
    device = torch.device("cpu")
    uses_cuda_graphs = False
    capturable = None
    compiled_graphs = 0
    compile_s = 0.0

    def __init__(self, calculator: Any) -> None:
        missing = {"energy", "forces"} - set(calculator.implemented_properties)
        if missing:
            raise ValueError(f"{type(calculator).__name__} does not give {', '.join(sorted(missing))}")
        self.calculator, self.evaluations = calculator, 0
        self.name = f"ase/{type(calculator).__name__}"
        calculate = calculator.calculate

        def counted(*arguments: Any, **keywords: Any) -> None:
            """Count calculations below ASE's cache: a cached result does not count."""
            calculate(*arguments, **keywords)
            self.evaluations += 1

        calculator.calculate = counted

    def has_graph(self, batch: AtomicBatch) -> bool:
        """Return True: nothing is compiled."""
        return True

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Compute energy and forces of each system, with the charges, moments, tags and ``info`` of its source."""
        energies = np.zeros(batch.n_systems)
        forces = np.zeros((batch.n_systems, batch.n_slots, 3))
        numbers = batch.per_system(batch.atomic_numbers).cpu().numpy()
        positions = batch.per_system(batch.positions).detach().cpu().numpy()
        cells, pbc, sources = batch.cell.cpu().numpy(), batch.pbc.cpu().numpy(), batch.sources
        for system in range(batch.n_systems):
            real = numbers[system] > 0
            if sources is not None and system < len(sources):  # bucketed batches end with empty systems
                atoms = sources[system].copy()
                atoms.positions = positions[system][real]
            else:
                atoms = Atoms(numbers[system][real], positions[system][real], cell=cells[system], pbc=pbc[system])
            atoms.calc = self.calculator
            forces[system][real] = atoms.get_forces()
            energies[system] = atoms.get_potential_energy()
        device = batch.positions.device
        return Prediction(torch.from_numpy(energies).to(device), torch.from_numpy(forces.reshape(-1, 3)).to(device))


class BatchCalculator(Calculator):
    """An ASE calculator that computes all its results for a structure in one call of `find_results`."""

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate ``atoms`` and fill ``results``; ASE calls this.

        Raises:
            ValueError: the structure or one of its elements can't be evaluated.
            FloatingPointError: the precision overflowed.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        self.results = self.find_results(self.atoms, properties)

    def find_results(self, atoms: Atoms, properties: Sequence[str]) -> dict[str, Any]:
        """Compute the results by name, at least ``properties``."""
        raise NotImplementedError


class EngineCalculator(BatchCalculator):
    """An engine as a calculator for ASE's optimisers.

    Users get `calculator.StudentForceFieldCalculator`, which checks more.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def find_results(self, atoms: Atoms, properties: Sequence[str]) -> dict[str, Any]:
        """Energy in eV and forces in eV/Å."""
        engine = self._engine
        prediction = engine(collate([atoms], engine.cutoff, near=engine.shorter_cutoffs, device=engine.device))
        return {"energy": prediction.energy.item(), "forces": prediction.forces.cpu().numpy()}
