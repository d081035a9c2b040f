"""Molecular dynamics at constant energy on any engine: velocity Verlet, and the preparation of its start.

Integrator state is FP64 whatever the precision of the engine. Velocities are in ASE's units, Å·√(eV/u)/Å.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms, units
from torch import Tensor

from mlff_exp.dynamics.bonds import find_bonds
from mlff_exp.dynamics.recording import Records, Trajectory, joined_columns, recorded_columns
from mlff_exp.dynamics.state import MDState, Snapshot
from mlff_exp.engines import Engine, Mover, Prediction, capture
from mlff_exp.measure import internal_degrees_of_freedom, kinetic_temperature
from mlff_exp.structures import AtomicBatch, collate, relisted, uses_all_pairs

SKIN_ANG = 1.0
BROKEN_BOND_ANG = 1.0
RECORDS_AT_ONCE = {"cpu": 20, "cuda": 200}  # between looks at the numbers


class Dynamics:
    """Systems moving independently in one batch.

    Args:
        engine: gives energies and forces.
        systems: their start; their positions define bonds and displacements.
        timestep_fs: of velocity Verlet.
        names: of the systems, for messages; "replica 0" and so on if not given.
        advance: does steps of a state in place, instead of our own velocity Verlet.

    Raises:
        ValueError: a single atom, which has no internal motion.
    """

    def __init__(
        self,
        engine: Engine,
        systems: list[Atoms],
        timestep_fs: float,
        *,
        names: Sequence[str] | None = None,
        advance: Callable[[MDState, int], None] | None = None,
    ) -> None:
        self.engine, self.systems, self.timestep_fs, self.advance = engine, systems, timestep_fs, advance
        self.names = [f"replica {index}" for index in range(len(systems))] if names is None else names
        self.dof = np.array([internal_degrees_of_freedom(atoms.positions, atoms.pbc) for atoms in systems])
        self.batch = collate(systems, engine.cutoff, skin=SKIN_ANG, device=engine.device)
        self._start = self.batch.positions.cpu()
        self._listed = [not uses_all_pairs(atoms) for atoms in systems]
        self._listed_at = self.batch.positions.clone()
        self._farthest_squared = torch.zeros((), dtype=torch.float64, device=engine.device)
        # Padding feels no force and never moves, whatever its mass.
        masses = np.ones((len(systems), self.batch.n_slots))
        for row, atoms in zip(masses, systems, strict=True):
            row[: len(atoms)] = atoms.get_masses()
        self._masses_on_cpu = torch.from_numpy(masses.reshape(-1, 1))
        self.masses = self._masses_on_cpu.to(engine.device)
        self._timestep = torch.full((1,), timestep_fs * units.fs, dtype=torch.float64, device=engine.device)
        self._bonds = _bonds(systems, self.batch)

    def state(self, positions: Tensor, velocities: Tensor) -> MDState:
        """A state with its forces evaluated; it does not share the tensors."""
        if self.listed:
            self.list_anew(positions)
        prediction = self._evaluate(positions, self.engine)
        return MDState(positions.clone(), velocities.clone(), prediction.forces, prediction.energy)

    def step(self, state: MDState) -> None:
        """One step of velocity Verlet (Swope et al., J. Chem. Phys. 76, 637 (1982)), in place."""
        if self.advance is None:
            self._steps(state, 1, self.engine, look=True)
        else:
            self.advance(state, 1)
        state.step += 1

    def _steps(self, state: MDState, n_steps: int, engine: Engine, *, look: bool = False) -> None:
        """Between two steps their half kicks are one: every small kernel costs a captured step a microsecond.

        ``look`` where the atoms are before they are evaluated, and list their neighbours anew if one may be missing;
        without it nothing waits, and `outran_list` tells afterwards.
        """
        if isinstance(engine, Mover) and engine.can_move(self.batch):
            last = Prediction(state.energy, state.forces)
            batch = self.batch.with_positions(state.positions)
            engine.move(batch, state.velocities, last, self.masses, self._timestep, n_steps)
            return
        dt = self.timestep_fs * units.fs
        state.velocities.addcdiv_(state.forces, self.masses, value=0.5 * dt)
        for left in reversed(range(n_steps)):
            state.positions.add_(state.velocities, alpha=dt)
            if self.listed:
                moved = (state.positions - self._listed_at).square().sum(dim=-1).max()
                torch.maximum(self._farthest_squared, moved, out=self._farthest_squared)
                if look and self.outran_list():
                    self.list_anew(state.positions)
            prediction = self._evaluate(state.positions, engine)
            state.velocities.addcdiv_(prediction.forces, self.masses, value=dt if left else 0.5 * dt)
        state.energy.copy_(prediction.energy)
        state.forces.copy_(prediction.forces)

    def run(
        self,
        state: MDState,
        n_steps: int,
        record_every: int,
        progress: Callable[[int], object] | None = None,
        *,
        since: Snapshot | None = None,
        keep: Callable[[Snapshot], None] | None = None,
        keep_every_s: float = 60.0,
    ) -> Trajectory:
        """Integrate, recording the start and every ``record_every`` steps; ends early if a trajectory blows up.

        Where the engine can be captured, all steps from one record to the next and the record itself are one CUDA
        graph. Records stay on the device; what follows from them is computed on the CPU, in blocks, while the next
        block is under way.

        Args:
            state: moves in place.
            n_steps: in all.
            record_every: steps between records.
            progress: called with the number of steps that were done since the last time.
            since: go on from here, at the same state, instead of from the start.
            keep: is given a snapshot now and then.
            keep_every_s: seconds between snapshots.
        """
        if since is None:
            first = self._observed(*(part.unsqueeze(0).cpu() for part in recorded_columns(state)))
            steps, blocks = [state.step], [tuple(column.clone() for column in first)]
        else:
            steps, blocks = list(since.steps), [since.columns]
        n_records, rest = divmod(n_steps - (steps[-1] - steps[0]), record_every)
        blow_up = None
        for block, then in self._blocks(state, n_records, record_every, keep_every_s if keep else math.inf):
            new = [steps[-1] + record_every * (index + 1) for index in range(len(block[0]))]
            blow_up = self._blow_up(block, new)
            blocks.append(block)
            steps += new
            if progress is not None:
                progress(record_every * len(new))
            if blow_up is not None:
                break
            if then is not None and keep is not None:
                blocks = [joined_columns(blocks)]
                keep(Snapshot(then, list(steps), blocks[0]))
        for _ in range(0 if blow_up else rest):
            self.step(state)
        potential, kinetic, displacement, bond_change, momentum, positions, velocities = (
            column.numpy() for column in joined_columns(blocks)
        )
        return Trajectory(
            steps=np.array(steps),
            times_ps=np.array(steps) * self.timestep_fs / 1000,
            potential=potential,
            kinetic=kinetic,
            temperature=np.stack(
                [kinetic_temperature(kinetic[:, i], int(dof)) for i, dof in enumerate(self.dof)], axis=1
            ),
            displacement=displacement,
            bond_change=bond_change,
            momentum=momentum,
            positions=positions,
            velocities=velocities,
            blow_up=blow_up,
        )

    def _blocks(
        self, state: MDState, n_records: int, record_every: int, keep_every_s: float
    ) -> Iterator[tuple[tuple[Tensor, ...], MDState | None]]:
        """Columns of records on the CPU, some records at a time, each while the device is at work on the next.

        With them, now and then, comes the state after the last of them.
        """
        if n_records == 0:
            return
        at_once = RECORDS_AT_ONCE[self.engine.device.type]
        stretch = _Stretch(self, state, record_every, min(at_once, n_records))
        under_way, kept_at = None, time.monotonic()
        for done in range(0, n_records, at_once):
            for _ in range(min(at_once, n_records - done)):
                stretch()
            then = None
            if time.monotonic() - kept_at >= keep_every_s:
                then, kept_at = state.copy(), time.monotonic()
            previous, under_way = under_way, (stretch.take(), then)
            if previous is not None:
                yield self._observed(*previous[0].result()), previous[1]
        if under_way is not None:
            yield self._observed(*under_way[0].result()), under_way[1]

    def stretch(self, state: MDState, n_steps: int) -> Callable[[], None]:
        """What `run` repeats: so many steps of a state and a record, one CUDA graph where the engine can be captured.

        For timing it: records are collected and sent to the CPU as in `run`, and nobody looks at them.
        """
        at_once = RECORDS_AT_ONCE[self.engine.device.type]
        stretch = _Stretch(self, state, n_steps, at_once)

        def go() -> None:
            stretch()
            if stretch.filled == at_once:
                stretch.take()

        return go

    def kinetic_energy(self, velocities: Tensor) -> Tensor:
        """[n_systems] eV."""
        return self.batch.per_system(0.5 * self.masses * velocities.square()).sum(dim=(1, 2))

    def _evaluate(self, positions: Tensor, engine: Engine) -> Prediction:
        return engine(self.batch.with_positions(positions))

    def outran_list(self) -> bool:
        """Whether an atom has been so far from where neighbours were looked for that a pair may be missing.

        Waits for the device. NaN counts as far.
        """
        return not float(self._farthest_squared) <= (SKIN_ANG / 2) ** 2

    def list_anew(self, positions: Tensor) -> None:
        """Look for neighbours on the device, within cutoff and skin.

        The batch and its tensors stay, with new numbers, so that what was captured with them holds; if an atom has more
        neighbours than there is room for, there is a new batch with more room.
        """
        found = relisted(self.batch.with_positions(positions), self._listed, self.engine.cutoff + SKIN_ANG)
        self._listed_at.copy_(positions)
        self._farthest_squared.zero_()
        if found.shape_key == self.batch.shape_key:
            for old, new in zip(self.batch.tensors()[1:], found.tensors()[1:], strict=True):
                old.copy_(new)
        else:
            self.batch = found

    def _observed(self, energy: Tensor, positions: Tensor, velocities: Tensor) -> tuple[Tensor, ...]:
        """Columns of a `Trajectory` from records on the CPU.

        Args:
            energy: [n_records, n_systems].
            positions: [n_records, n_atoms, 3].
            velocities: the same.
        """
        n_records, n_systems = energy.shape
        masses = self._masses_on_cpu

        def per_system(values: Tensor) -> Tensor:
            return values.view(n_records, n_systems, -1, 3)

        momenta = per_system(masses * velocities)
        kinetic = 0.5 * (momenta * per_system(velocities)).sum(dim=(2, 3))
        moved = per_system(positions - self._start).norm(dim=-1).amax(dim=2)
        momentum = momenta.sum(dim=2).norm(dim=-1) / momenta.norm(dim=-1).sum(dim=2)
        of_bonds = self._bonds.system.expand(n_records, -1)
        largest = torch.zeros_like(kinetic).scatter_reduce(1, of_bonds, self._bonds.change(positions), "amax")
        return energy, kinetic, moved, largest, momentum, per_system(positions), per_system(velocities)

    def has_bonds(self, system: int) -> bool:
        """Whether there is any bond whose length can be watched."""
        return bool((self._bonds.system == system).any())

    @property
    def listed(self) -> bool:
        """Whether neighbours have to be looked after."""
        return any(self._listed)

    def _blow_up(self, block: tuple[Tensor, ...], steps: list[int]) -> str | None:
        for record, step in zip(zip(*block, strict=True), steps, strict=True):
            potential, kinetic, _, bond_change, _, positions, _ = record
            total = potential + kinetic
            if not total.isfinite().all():
                system = int((~total.isfinite()).nonzero()[0])
                atoms = (~positions[system].isfinite()).any(dim=-1).nonzero().flatten().tolist()
                where = f"atoms {atoms}" if atoms else "its energy"
                return f"{self.names[system]} became NaN or infinite at step {step}: {where}"
            if bond_change.max() > BROKEN_BOND_ANG:
                system = int(bond_change.argmax())
                bonds = self._bonds
                change = bonds.change(positions.flatten(0, 1)) * (bonds.system == system)
                worst = int(change.argmax())
                pair = [int(index[worst]) - system * self.batch.n_slots for index in (bonds.first, bonds.second)]
                return (
                    f"{self.names[system]} broke apart at step {step}: the bond of atoms {pair[0]} and {pair[1]} "
                    f"changed by {float(change[worst]):.2f} Å"
                )
        return None


class _Stretch:
    """All steps from one record to the next and the record, in one CUDA graph where the engine can be captured.

    Records go into a buffer on the device; ``take`` sends what is in it to the CPU and begins anew.
    """

    def __init__(self, dynamics: Dynamics, state: MDState, n_steps: int, capacity: int) -> None:
        self._dynamics, self._state, self._n_steps, self.filled = dynamics, state, n_steps, 0
        self._device = dynamics.engine.device
        self._buffers = [part.new_zeros(capacity, *part.shape) for part in recorded_columns(state)]
        self._row = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._graph, self._batch = self._captured(), dynamics.batch

    def __call__(self) -> None:
        before = self._state.copy() if self._dynamics.listed else None
        self._go()
        if before is not None and self._dynamics.outran_list():
            self._once_more(before)
        self._state.step += self._n_steps
        self.filled += 1

    def _once_more(self, before: MDState) -> None:
        """The same steps with new neighbours; one at a time if atoms are too fast for that as well."""
        self._state.become(before)
        self._row -= 1
        self._dynamics.list_anew(self._state.positions)
        self._go()
        if self._dynamics.outran_list():
            self._state.become(before)
            self._row -= 1
            for _ in range(self._n_steps):
                self._dynamics.step(self._state)
            self._state.step = before.step
            self._write(self._state)

    def _go(self) -> None:
        if self._batch is not self._dynamics.batch:
            self._graph, self._batch = self._captured(), self._dynamics.batch
        if self._graph is None:
            self._run(self._state, self._dynamics.engine)
        else:
            self._graph.replay()

    def take(self) -> Records:
        """What was recorded since the last time."""
        records = [buffer[: self.filled] for buffer in self._buffers]
        self.filled = 0
        self._row.zero_()
        return Records(records)

    def _run(self, state: MDState, engine: Engine) -> None:
        if self._dynamics.advance is not None:
            self._dynamics.advance(state, self._n_steps)
        else:
            self._dynamics._steps(state, self._n_steps, engine)
        self._write(state)

    def _write(self, state: MDState) -> None:
        for buffer, part in zip(self._buffers, recorded_columns(state), strict=True):
            buffer.index_copy_(0, self._row, part.unsqueeze(0))
        self._row += 1

    def _captured(self) -> torch.cuda.CUDAGraph | None:
        inner = self._dynamics.engine.capturable
        if inner is None or self._dynamics.advance is not None:
            return None
        dynamics = self._dynamics
        row, farthest = self._row.clone(), dynamics._farthest_squared.clone()

        def warm_up() -> None:
            self._run(self._state.copy(), inner)  # a state that nobody needs
            self._row.copy_(row)
            dynamics._farthest_squared.copy_(farthest)

        graph, _ = capture(lambda: self._run(self._state, inner), self._device, warm_up=[warm_up] * 2)
        return graph


@dataclass(frozen=True)
class _Bonds:
    """Bonds of a batch, on the CPU, where records are looked at.

    Attributes:
        first, second: [n_bonds] rows of the batch.
        shifts: [n_bonds, 3] Å to the image of the second atom that was bonded at the start.
        lengths: [n_bonds] at the start, Å.
        system: [n_bonds] whose it is.
    """

    first: Tensor
    second: Tensor
    shifts: Tensor
    lengths: Tensor
    system: Tensor

    def change(self, positions: Tensor) -> Tensor:
        """[…, n_bonds] Å by which lengths differ from those at the start.

        Args:
            positions: […, n_atoms, 3] Å, not wrapped into the cell.
        """
        arrows = positions[..., self.second, :] + self.shifts - positions[..., self.first, :]
        change: Tensor = (arrows.norm(dim=-1) - self.lengths).abs()
        return change


def _bonds(systems: list[Atoms], batch: AtomicBatch) -> _Bonds:
    found = [find_bonds(atoms) for atoms in systems]
    offsets = [index * batch.n_slots for index in range(len(found))]
    columns = (
        [bonds.first + offset for bonds, offset in zip(found, offsets, strict=True)],
        [bonds.second + offset for bonds, offset in zip(found, offsets, strict=True)],
        [bonds.shifts for bonds in found],
        [bonds.lengths for bonds in found],
        [np.full(len(bonds), index) for index, bonds in enumerate(found)],
    )
    return _Bonds(*(torch.from_numpy(np.concatenate(column)) for column in columns))
