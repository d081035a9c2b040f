"""Fit a student to labelled structures."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms
from torch import Tensor

from mlff_exp.batch import AtomicBatch, collate
from mlff_exp.data import Dataset
from mlff_exp.painn import PaiNN


@dataclass(frozen=True)
class Schedule:
    """How a student is trained.

    Attributes:
        steps: gradient steps.
        atoms_per_step: systems of one size are batched up to about this many atoms.
        learning_rate: its peak; linear warm-up over ``warmup_steps`` or a tenth of ``steps``, then a cosine to zero.
        energy_weight: of the energy error per atom (eV) against the force error (eV/Å).
        ema_decay: of the moving average of the weights, which is what is kept.
        log_every: steps between reports.
    """

    steps: int = 24_000
    atoms_per_step: int = 192
    learning_rate: float = 1e-3
    warmup_steps: int = 500
    energy_weight: float = 10.0
    ema_decay: float = 0.999
    log_every: int = 250


@dataclass(frozen=True)
class Errors:
    """Of a student against its teacher on a set of structures."""

    energy_mae_mev_per_atom: float
    force_mae_mev_per_ang: float
    force_rmse_mev_per_ang: float
    force_r2: float


class EqualSizeBatches:
    """Batches of structures with the same number of atoms: no padding, and one topology per size."""

    def __init__(self, dataset: Dataset, cutoff: float, atoms_per_step: int, device: torch.device) -> None:
        self.cutoff, self.device, self.atoms_per_step = cutoff, device, atoms_per_step
        self.by_size: dict[int, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        self.topology: dict[tuple[int, int], AtomicBatch] = {}
        for size in np.unique(dataset.counts):
            part = dataset.select(dataset.counts == size)
            shape = (len(part), int(size))
            self.by_size[int(size)] = (
                torch.from_numpy(part.atomic_numbers.reshape(shape)).to(device),
                torch.from_numpy(part.positions.reshape(*shape, 3).astype(np.float64)).to(device),
                torch.from_numpy(part.energies).to(device),
                torch.from_numpy(part.forces.reshape(*shape, 3).astype(np.float64)).to(device),
            )

    def epoch(self, rng: np.random.Generator | None) -> Iterator[tuple[AtomicBatch, Tensor, Tensor]]:
        """Every structure once, shuffled if there is an rng.

        Yields:
            Batch, energies [n_systems] eV, forces [n_atoms, 3] eV/Å.
        """
        plan: list[tuple[int, npt.NDArray[np.int64]]] = []
        for size, (numbers, *_) in self.by_size.items():
            order = np.arange(len(numbers)) if rng is None else rng.permutation(len(numbers))
            per_batch = max(1, self.atoms_per_step // size)
            plan += [(size, order[start : start + per_batch]) for start in range(0, len(order), per_batch)]
        if rng is not None:
            rng.shuffle(plan)
        for size, chosen in plan:
            index = torch.from_numpy(chosen).to(self.device)
            numbers, positions, energies, forces = (values[index] for values in self.by_size[size])
            batch = replace(
                self._topology(size, len(chosen)),
                positions=positions.reshape(-1, 3),
                atomic_numbers=numbers.reshape(-1),
            )
            yield batch, energies, forces.reshape(-1, 3)

    def _topology(self, size: int, n_systems: int) -> AtomicBatch:
        key = (size, n_systems)
        if key not in self.topology:
            # Molecules of one size share their neighbours: every atom has all the others.
            placeholder = Atoms(numbers=np.ones(size), positions=np.arange(3 * size).reshape(size, 3))
            self.topology[key] = collate([placeholder] * n_systems, self.cutoff, device=self.device)
        return self.topology[key]


def train(
    model: PaiNN,
    dataset: Dataset,
    schedule: Schedule,
    *,
    seed: int,
    device: torch.device,
    report: Callable[[int, float, PaiNN], None],
) -> PaiNN:
    """Minimise energy and force errors; returns the moving average of the weights.

    ``report(step, mean loss since the last report, averaged model)`` is called every ``schedule.log_every`` steps.

    Raises:
        FloatingPointError: the loss became NaN or infinite.
    """
    model = model.to(device).train()
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, weight_decay=1e-6)
    warm_up_and_cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate(step, schedule))
    batches = EqualSizeBatches(dataset, model.architecture.cutoff, schedule.atoms_per_step, device)
    rng = np.random.default_rng(seed)

    step, losses = 0, []
    while step < schedule.steps:
        for batch, energies, forces in batches.epoch(rng):
            loss = _loss(model, batch, energies, forces, schedule.energy_weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            warm_up_and_cosine.step()
            decay = min(schedule.ema_decay, (1 + step) / (10 + step))
            with torch.no_grad():
                for mean, current in zip(averaged.parameters(), model.parameters(), strict=True):
                    mean.lerp_(current, 1 - decay)
            losses.append(loss.detach())
            step += 1
            if step % schedule.log_every == 0 or step == schedule.steps:
                mean_loss = float(torch.stack(losses).mean())
                if not math.isfinite(mean_loss):
                    raise FloatingPointError(f"the loss is {mean_loss} after step {step}: lower the learning rate")
                losses.clear()
                report(step, mean_loss, averaged)
            if step == schedule.steps:
                break
    return averaged.eval()


def evaluate(model: PaiNN, dataset: Dataset, device: torch.device) -> Errors:
    """Errors over a whole set, in the precision of the weights."""
    energy_errors, force_errors, labels = [], [], []
    for batch, energies, forces in EqualSizeBatches(dataset, model.architecture.cutoff, 1024, device).epoch(None):
        predicted_energy, predicted_forces = _predict(model, batch, training=False)
        energy_errors.append((predicted_energy.detach() - energies) / batch.n_slots)
        force_errors.append(predicted_forces.detach() - forces)
        labels.append(forces)
    energy, force, label = torch.cat(energy_errors), torch.cat(force_errors), torch.cat(labels)
    return Errors(
        energy_mae_mev_per_atom=1e3 * float(energy.abs().mean()),
        force_mae_mev_per_ang=1e3 * float(force.abs().mean()),
        force_rmse_mev_per_ang=1e3 * float(force.square().mean().sqrt()),
        force_r2=1 - float(force.square().sum() / (label - label.mean()).square().sum()),
    )


def _predict(model: PaiNN, batch: AtomicBatch, *, training: bool) -> tuple[Tensor, Tensor]:
    positions = batch.positions.clone().requires_grad_(True)
    energy = model(batch.with_positions(positions))
    (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=training)
    return energy, -gradient


def _loss(model: PaiNN, batch: AtomicBatch, energies: Tensor, forces: Tensor, energy_weight: float) -> Tensor:
    predicted_energy, predicted_forces = _predict(model, batch, training=True)
    energy_error = (predicted_energy - energies) / batch.n_slots
    force_error = predicted_forces - forces
    # Norms instead of squares: a few distorted structures would otherwise dominate.
    force_loss = (force_error.square().sum(dim=-1) + 1e-8).sqrt().mean()
    return force_loss + energy_weight * energy_error.abs().mean()


def _learning_rate(step: int, schedule: Schedule) -> float:
    warmup_steps = min(schedule.warmup_steps, schedule.steps // 10)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    fraction = (step - warmup_steps) / max(1, schedule.steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, fraction)))
