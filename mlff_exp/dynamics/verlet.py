"""Molecular dynamics at constant energy on any engine.

Integrator state is FP64 whatever the precision of the engine. Velocities are in ASE's units, Å·√(eV/u)/Å.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from ase import Atoms, units
from torch import Tensor

from mlff_exp.dynamics.bonds import find_batch_bonds
from mlff_exp.dynamics.integrators import velocity_verlet
from mlff_exp.dynamics.interval import FrameInterval
from mlff_exp.dynamics.lattice import is_lattice
from mlff_exp.dynamics.recording import Trajectory, columns_of_frame, join_columns
from mlff_exp.dynamics.state import Columns, MDState, Snapshot
from mlff_exp.engines import DynamicsEngine, Engine, Prediction
from mlff_exp.measure import internal_degrees_of_freedom, kinetic_temperature
from mlff_exp.structures import collate, rebuild_neighbors, uses_all_pairs

SKIN_ANG = 1.0
BROKEN_BOND_ANG = 1.0
FRAMES_AT_ONCE = {"cpu": 20, "cuda": 200}  # frames in a block; each block is checked for a blow-up


class Dynamics:
    """Systems moving independently in one batch.

    Args:
        engine: gives energies and forces.
        systems: the structures at the start; bonds and displacements are measured from there.
        timestep_fs: the timestep, fs.
        names: names of the systems, for messages; "replica 0" and so on if not given.
        advance: function that does a number of steps of a state in place, instead of our own velocity Verlet.

    Raises:
        ValueError: a system is a single atom, which has no internal motion.
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
        self.batch = collate(systems, engine.cutoff, near=engine.shorter_cutoffs, skin=SKIN_ANG, device=engine.device)
        self._start = self.batch.positions.cpu()
        self._needs_list = [not uses_all_pairs(atoms) for atoms in systems]
        self._list_positions = self.batch.positions.clone()
        self._farthest_squared = torch.zeros((), dtype=torch.float64, device=engine.device)
        # Padding feels no force and never moves, whatever its mass.
        masses = np.ones((len(systems), self.batch.n_slots))
        for row, atoms in zip(masses, systems, strict=True):
            row[: len(atoms)] = atoms.get_masses()
        self._masses_on_cpu = torch.from_numpy(masses.reshape(-1, 1))
        self.masses = self._masses_on_cpu.to(engine.device)
        self._timestep = torch.full((1,), timestep_fs * units.fs, dtype=torch.float64, device=engine.device)
        # The pairs that are near in a metal or a salt are no bonds, and may part.
        self._bonds = find_batch_bonds(systems, self.batch.n_slots, [is_lattice(atoms) for atoms in systems])

    def state(self, positions: Tensor, velocities: Tensor) -> MDState:
        """Evaluate the forces, and return a state that shares no tensor with the arguments.

        Args:
            positions: [n_rows, 3] Å.
            velocities: [n_rows, 3] ASE units.
        """
        if self.needs_list:
            self.rebuild_list(positions)
        prediction = self._evaluate(positions, self.engine)
        return MDState(positions.clone(), velocities.clone(), prediction.forces, prediction.energy)

    def step(self, state: MDState) -> None:
        """Do one step of velocity Verlet in place."""
        if self.advance is None:
            self._steps(state, 1, self.engine, look=True)
        else:
            self.advance(state, 1)
        state.step += 1

    def _steps(self, state: MDState, n_steps: int, engine: Engine, *, look: bool = False) -> None:
        """Do steps of a state in place.

        With ``look`` each step checks the neighbour list before it evaluates the forces, and rebuilds a list that may
        miss a pair. Without ``look`` nothing waits for the device, and `list_is_stale` gives the answer afterwards.
        """
        if isinstance(engine, DynamicsEngine) and engine.can_integrate(self.batch):
            last = Prediction(state.energy, state.forces)
            batch = self.batch.with_positions(state.positions)
            engine.integrate(batch, state.velocities, last, self.masses, self._timestep, n_steps)
            return

        def evaluate(positions: Tensor) -> Prediction:
            if self.needs_list:
                moved = (positions - self._list_positions).square().sum(dim=-1).max()
                torch.maximum(self._farthest_squared, moved, out=self._farthest_squared)
                if look and self.list_is_stale():
                    self.rebuild_list(positions)
            return self._evaluate(positions, engine)

        velocity_verlet(state, n_steps, self.timestep_fs * units.fs, self.masses, evaluate)

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
        """Integrate, and record the start and a frame every ``record_every`` steps. A blow-up ends the run early.

        Where the engine can be captured, the steps from one frame to the next and the recording are one CUDA graph.
        Frames stay on the device until a block is full. The CPU evaluates a block while the device computes the next.

        Args:
            state: the state, which is changed in place.
            n_steps: the number of steps of the complete trajectory.
            record_every: the number of steps between frames.
            progress: function that is called with the number of steps since its last call.
            since: a snapshot at the same state, from which to go on; None to begin.
            keep: function that is called with a snapshot every ``keep_every_s`` seconds.
            keep_every_s: seconds between snapshots.

        Returns:
            The frames from the start on, also those of the snapshot.
        """
        if since is None:
            first = self._columns_of(*(part.unsqueeze(0).cpu() for part in columns_of_frame(state)))
            steps, blocks = [state.step], [{name: column.clone() for name, column in first.items()}]
        else:
            steps, blocks = list(since.steps), [dict(since.columns)]
        n_frames, rest = divmod(n_steps - (steps[-1] - steps[0]), record_every)
        blow_up = None
        for block, then in self._blocks(state, n_frames, record_every, keep_every_s if keep else math.inf):
            new = [steps[-1] + record_every * (index + 1) for index in range(len(block["potential"]))]
            blow_up = self._blow_up(block, new)
            blocks.append(block)
            steps += new
            if progress is not None:
                progress(record_every * len(new))
            if blow_up is not None:
                break
            if then is not None and keep is not None:
                blocks = [join_columns(blocks)]
                keep(Snapshot(then, list(steps), blocks[0]))
        for _ in range(0 if blow_up else rest):
            self.step(state)
        columns = {name: column.numpy() for name, column in join_columns(blocks).items()}
        return Trajectory(
            steps=np.array(steps),
            times_ps=np.array(steps) * self.timestep_fs / 1000,
            temperature=np.stack(
                [kinetic_temperature(columns["kinetic"][:, i], int(dof)) for i, dof in enumerate(self.dof)], axis=1
            ),
            blow_up=blow_up,
            **columns,
        )

    def _blocks(
        self, state: MDState, n_frames: int, record_every: int, keep_every_s: float
    ) -> Iterator[tuple[Columns, MDState | None]]:
        """Yield blocks of frames on the CPU, each while the device computes the next block.

        Every ``keep_every_s`` seconds a block comes with the state after its last frame, else with None.
        """
        if n_frames == 0:
            return
        at_once = FRAMES_AT_ONCE[self.engine.device.type]
        interval = FrameInterval(self, state, record_every, min(at_once, n_frames))
        under_way, kept_at = None, time.monotonic()
        for done in range(0, n_frames, at_once):
            for _ in range(min(at_once, n_frames - done)):
                interval()
            then = None
            if time.monotonic() - kept_at >= keep_every_s:
                then, kept_at = state.copy(), time.monotonic()
            previous, under_way = under_way, (interval.take(), then)
            if previous is not None:
                yield self._columns_of(*previous[0].result()), previous[1]
        if under_way is not None:
            yield self._columns_of(*under_way[0].result()), under_way[1]

    def make_interval(self, state: MDState, n_steps: int) -> Callable[[], None]:
        """Make the function that `run` repeats: a number of steps of a state and the recording of a frame.

        It is for timing. Frames are sent to the CPU as in `run`, and then dropped.

        Args:
            state: the state, which each call changes in place.
            n_steps: the number of steps of a call.
        """
        at_once = FRAMES_AT_ONCE[self.engine.device.type]
        interval = FrameInterval(self, state, n_steps, at_once)

        def go() -> None:
            interval()
            if interval.filled == at_once:
                interval.take()

        return go

    def kinetic_energy(self, velocities: Tensor) -> Tensor:
        """Return the kinetic energy of each system, [n_systems] eV.

        Args:
            velocities: [n_rows, 3] ASE units.
        """
        return self.batch.per_system(0.5 * self.masses * velocities.square()).sum(dim=(1, 2))

    def _evaluate(self, positions: Tensor, engine: Engine) -> Prediction:
        return engine(self.batch.with_positions(positions))

    def list_is_stale(self) -> bool:
        """Return whether an atom moved so far since the list was built that a pair may be missing.

        The call waits for the device. A distance of NaN counts as too far.
        """
        return not float(self._farthest_squared) <= (SKIN_ANG / 2) ** 2

    def rebuild_list(self, positions: Tensor) -> None:
        """Find the neighbours again on the device, within cutoff and skin.

        The batch keeps its tensors, with new numbers, so that captured graphs stay valid. If an atom has more
        neighbours than the batch has columns, a new and larger batch takes its place.

        Args:
            positions: [n_rows, 3] Å.
        """
        moved = self.batch.with_positions(positions)
        found = rebuild_neighbors(moved, self._needs_list, self.engine.cutoff, skin=SKIN_ANG)
        self._list_positions.copy_(positions)
        self._farthest_squared.zero_()
        if found.shape_key == self.batch.shape_key:
            for old, new in zip(self.batch.tensors()[1:], found.tensors()[1:], strict=True):
                old.copy_(new)
        else:
            self.batch = found

    def _columns_of(self, energy: Tensor, positions: Tensor, velocities: Tensor) -> Columns:
        """Compute the columns of a `Trajectory` from frames on the CPU.

        Args:
            energy: [n_frames, n_systems] eV.
            positions: [n_frames, n_rows, 3] Å.
            velocities: [n_frames, n_rows, 3] ASE units.
        """
        n_frames, n_systems = energy.shape
        masses = self._masses_on_cpu

        def per_system(values: Tensor) -> Tensor:
            return values.view(n_frames, n_systems, -1, 3)

        momenta = per_system(masses * velocities)
        kinetic = 0.5 * (momenta * per_system(velocities)).sum(dim=(2, 3))
        moved = per_system(positions - self._start).norm(dim=-1).amax(dim=2)
        momentum = momenta.sum(dim=2).norm(dim=-1) / momenta.norm(dim=-1).sum(dim=2)
        of_bonds = self._bonds.system.expand(n_frames, -1)
        largest = torch.zeros_like(kinetic).scatter_reduce(1, of_bonds, self._bonds.change(positions), "amax")
        return {
            "potential": energy,
            "kinetic": kinetic,
            "displacement": moved,
            "bond_change": largest,
            "momentum": momentum,
            "positions": per_system(positions),
            "velocities": per_system(velocities),
        }

    def has_bonds(self, system: int) -> bool:
        """Return whether a system has a bond.

        Args:
            system: its index in the batch.
        """
        return bool((self._bonds.system == system).any())

    @property
    def needs_list(self) -> bool:
        """Whether a system has a list of neighbours, which has to be rebuilt as atoms move."""
        return any(self._needs_list)

    def _blow_up(self, block: Columns, steps: list[int]) -> str | None:
        for index, step in enumerate(steps):
            positions, bond_change = block["positions"][index], block["bond_change"][index]
            total = block["potential"][index] + block["kinetic"][index]
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
                pair = [int(rows[worst]) - system * self.batch.n_slots for rows in (bonds.first, bonds.second)]
                return (
                    f"{self.names[system]} broke apart at step {step}: the bond of atoms {pair[0]} and {pair[1]} "
                    f"changed by {float(change[worst]):.2f} Å"
                )
        return None
