"""Explore with hot dynamics of a student, to find the structures that it has to learn next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms, units
from ase.data import atomic_masses
from torch import Tensor

from mlff_exp.common import ProgressBar, progress_bar
from mlff_exp.dynamics import BROKEN_BOND_ANG, find_batch_bonds, langevin_step
from mlff_exp.engines import energy_and_forces
from mlff_exp.models import PaiNN
from mlff_exp.structures import (
    ORIGINS,
    Bucket,
    Dataset,
    DatasetError,
    Expected,
    make_buckets,
    read_arrays,
    save_arrays,
    slots_per_batch,
)

TIMESTEP_FS = 1.0
FRICTION_PER_FS = 0.02
TEMPERATURES_K = (300.0, 1500.0)
COLLISION_ANG = 0.55
# n frames with N atoms in total.
ARRAYS = {
    "names": Expected("str", ("n",)),
    "counts": Expected("int64", ("n",)),
    "numbers": Expected("int64", ("N",)),
    "positions": Expected("float64", ("N", 3)),
    "exploded": Expected("bool", ("n",)),
}


@dataclass(frozen=True)
class ExploredFrames:
    """Frames of the student's dynamics, without labels.

    Attributes:
        names: [n_frames] SMILES.
        atoms: [n_frames] structures.
        exploded: [n_frames], whether the trajectory broke at this frame or at the next.
    """

    names: list[str]
    atoms: list[Atoms]
    exploded: npt.NDArray[np.bool_]

    def save(self, path: Path) -> None:
        """Write a compressed npz file without pickles; a file that exists is always complete."""
        save_arrays(
            path,
            names=np.array(self.names),
            counts=np.array([len(one) for one in self.atoms]),
            numbers=np.concatenate([one.numbers for one in self.atoms]),
            positions=np.concatenate([one.positions for one in self.atoms]),
            exploded=self.exploded,
        )

    @staticmethod
    def load(path: Path) -> ExploredFrames:
        """Read a file that `save` wrote.

        Raises:
            DatasetError: the file is missing, damaged or another kind of file.
        """
        try:
            arrays = read_arrays(path, ARRAYS)
            counts, numbers = arrays["counts"], arrays["numbers"]
            if counts.min(initial=1) < 1 or int(counts.sum()) != len(numbers):
                raise ValueError(f"counts do not add up to its {len(numbers)} atoms")
            if numbers.min(initial=1) < 1 or numbers.max(initial=1) > 118:
                raise ValueError("numbers holds one that no element has")
        except ValueError as error:
            raise DatasetError(f"{path} holds no explored frames, remove it and run again: {error}") from error
        ends = np.cumsum(counts)[:-1]
        parts = zip(np.split(numbers, ends), np.split(arrays["positions"], ends), strict=True)
        return ExploredFrames(arrays["names"].tolist(), [Atoms(*part) for part in parts], arrays["exploded"])


def explore(
    student: PaiNN, dataset: Dataset, *, n_frames: int, stride: int, seed: int, device: torch.device
) -> ExploredFrames:
    """Run Langevin dynamics from every relaxed structure of a dataset, each at a random temperature.

    A trajectory ends where it breaks. The frame before is kept, and also the broken one unless atoms collided.

    Args:
        student: the model whose forces move the atoms.
        dataset: trajectories start from its relaxed structures.
        n_frames: frames of each trajectory.
        stride: steps of 1 fs between frames.
        seed: random seed of velocities, temperatures and noise.
        device: device of the dynamics.
    """
    model = student.to(device).requires_grad_(False)
    starts = dataset.select(dataset.origin == ORIGINS.index("relaxed"))
    names, atoms, exploded = [], [], []
    parts = [
        (bucket, index)
        for bucket in make_buckets(starts, model.cutoff, device)
        for index in torch.arange(len(bucket), device=device).split(max(1, slots_per_batch(device) // bucket.n_slots))
    ]
    generator = torch.Generator(device).manual_seed(seed)
    with progress_bar(total=len(parts) * n_frames, desc="exploring", unit="frame") as bar:
        for bucket, index in parts:
            numbers, positions, broken = _trajectories(model, bucket, index, n_frames, stride, generator, bar)
            # Frames after the first broken one are dropped.
            never = n_frames + 1
            first = np.where(broken.any(axis=0), broken.argmax(axis=0), never)
            for system, member in enumerate(bucket.members[index.cpu().numpy()]):
                real = numbers[system] > 0
                for frame in range(min(first[system] + 1, n_frames)):
                    names.append(str(starts.names[member]))
                    atoms.append(Atoms(numbers[system][real], positions[frame, system][real]))
                    exploded.append(frame >= first[system] - 1)
    finite = [bool(np.isfinite(one.positions).all() and np.abs(one.positions).max() < 30) for one in atoms]
    return ExploredFrames(
        [name for name, ok in zip(names, finite, strict=True) if ok],
        [one for one, ok in zip(atoms, finite, strict=True) if ok],
        np.array(exploded, dtype=bool)[finite],
    )


def select_worst(exploded: npt.NDArray[np.bool_], error: npt.NDArray[np.float64], n_kept: int) -> npt.NDArray[np.bool_]:
    """Select frames: first those where a trajectory broke, then those with the largest error.

    Args:
        exploded: [n_frames], whether the trajectory broke there.
        error: [n_frames].
        n_kept: number of frames to select.

    Returns:
        [n_frames], True for selected frames.
    """
    kept = np.zeros(len(error), dtype=bool)
    kept[np.lexsort((error, exploded))[::-1][:n_kept]] = True
    return kept


def _trajectories(
    model: PaiNN,
    bucket: Bucket,
    index: Tensor,
    n_frames: int,
    stride: int,
    generator: torch.Generator,
    bar: ProgressBar,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Run dynamics and record frames.

    Returns:
        Atomic numbers [n_systems, n_slots], positions [n_frames, n_systems, n_slots, 3] Å, and which systems are broken
        [n_frames, n_systems].
    """
    batch = bucket.take(index).batch
    shape = (batch.n_systems, batch.n_slots)
    numbers = batch.atomic_numbers.cpu().numpy()
    is_atom = batch.is_atom.unsqueeze(-1)
    mass = torch.from_numpy(np.where(numbers > 0, atomic_masses[numbers], 1.0)).to(index.device).unsqueeze(-1)
    low, high = TEMPERATURES_K
    temperature = low + (high - low) * torch.rand(
        batch.n_systems, generator=generator, device=index.device, dtype=torch.float64
    )
    spread = (units.kB * temperature.repeat_interleave(batch.n_slots).unsqueeze(-1) / mass).sqrt() * is_atom
    dt = TIMESTEP_FS * units.fs
    kept = float(np.exp(-FRICTION_PER_FS * TIMESTEP_FS))
    stir = float(np.sqrt(1 - kept**2))

    def noise() -> Tensor:
        shape = (mass.shape[0], 3)
        kicks: Tensor = spread * torch.randn(shape, generator=generator, device=index.device, dtype=torch.float64)
        return kicks

    def forces_at(positions: Tensor) -> Tensor:
        return energy_and_forces(model, batch.with_positions(positions), "fp32")[1]

    positions, velocities = batch.positions, noise()
    forces = forces_at(positions)
    integrity = _Integrity(numbers.reshape(shape), positions.reshape(*shape, 3))
    frames, broken = [], []
    for _ in range(n_frames):
        for _ in range(stride):
            positions, velocities, forces = langevin_step(
                positions, velocities, forces,
                timestep=dt, masses=mass, kept=kept, kick=stir * noise(), evaluate=forces_at,
            )  # fmt: skip
        frame = positions.reshape(*shape, 3)
        frames.append(frame.cpu().numpy())
        broken.append(integrity.broken(frame).cpu().numpy())
        bar.update()
    return numbers.reshape(shape), np.stack(frames), np.stack(broken)


class _Integrity:
    """Checks whether systems still have their initial bonds and no colliding atoms."""

    def __init__(self, numbers: npt.NDArray[np.int64], positions: Tensor) -> None:
        start, is_atom = positions.cpu().numpy(), numbers > 0
        systems = [Atoms(*(part[real] for part in one)) for *one, real in zip(numbers, start, is_atom, strict=True)]
        self._bonds = find_batch_bonds(systems, numbers.shape[1]).to(positions.device)
        real = torch.from_numpy(is_atom).to(positions.device)
        distinct = ~torch.eye(numbers.shape[1], dtype=torch.bool, device=positions.device)
        self._pair = real.unsqueeze(1) & real.unsqueeze(2) & distinct

    def broken(self, positions: Tensor) -> Tensor:
        """Return which systems are broken, [n_systems]: a bond changed too much, atoms collided, or positions are NaN.

        Args:
            positions: [n_systems, n_slots, 3] Å.
        """
        apart = ~self._pair | (torch.cdist(positions, positions) > COLLISION_ANG)
        broken: Tensor = ~apart.flatten(1).all(dim=1)
        changed = ~(self._bonds.change(positions.flatten(0, 1)) <= BROKEN_BOND_ANG)
        broken[self._bonds.system[changed]] = True
        return broken
