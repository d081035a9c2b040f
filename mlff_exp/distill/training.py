"""Train a student on labelled structures, on one device, in one or several sessions."""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlff_exp.config import ConfigError
from mlff_exp.distill.training_state import TrainingState
from mlff_exp.engines import capture, energy_and_forces, matmul_precision, side_stream
from mlff_exp.measure import accuracy_vs_teacher
from mlff_exp.models import PaiNN
from mlff_exp.structures import AtomicBatch, Dataset, LabelledBatch, evaluate, make_buckets, pack_batches

Array = npt.NDArray[np.float64]

MAX_GRADIENT_NORM = 10.0


@dataclass(frozen=True)
class Schedule:
    """The settings of a training.

    Attributes:
        steps: gradient steps.
        atoms_per_step: structures of similar size are batched up to this many atoms.
        learning_rate: peak value; linear warm-up over a fiftieth of ``steps``, then a cosine to zero.
        energy_weight: weight of the energy error per atom (eV) relative to the force error (eV/Å).
        ema_decay: decay of the moving average of the weights; the average is the result.
        save_every_s: time between saved states, and between reports, s.
    """

    steps: int
    atoms_per_step: int
    learning_rate: float
    energy_weight: float
    ema_decay: float
    save_every_s: float = 30.0


class Training:
    """A training that can be interrupted: it continues from the last state on disk with the same numbers.

    Args:
        model: initial model; changed in place.
        dataset: training set.
        schedule: how to train.
        seed: random seed of the order of structures.
        device: on CUDA each shape of batch is captured in a CUDA graph, because the many small kernels of a second
            derivative take longer to launch than to run.
    """

    def __init__(self, model: PaiNN, dataset: Dataset, schedule: Schedule, *, seed: int, device: torch.device) -> None:
        self.schedule, self.seed, self.device = schedule, seed, device
        self.model = model.to(device).train().requires_grad_(True)
        self.averaged = copy.deepcopy(self.model).requires_grad_(False)
        self.step, self.seconds = 0, 0.0
        self.losses: list[tuple[int, float]] = []
        self._parameters = list(self.model.parameters())
        self._learning_rate = torch.tensor(0.0, device=device)
        self._ema_weight = torch.tensor(0.0, device=device)
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=self._learning_rate, weight_decay=1e-6, fused=True, capturable=device.type == "cuda"
        )
        self._buckets = make_buckets(dataset, model.cutoff, device)
        self._n_systems = [max(1, schedule.atoms_per_step // bucket.n_slots) for bucket in self._buckets]
        self._loss = torch.zeros((), device=device, dtype=torch.float64)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._seen = [0] * len(self._buckets)

    def run(self, state: Path, budget_s: float, report: Callable[[Training], None]) -> bool:
        """Train until the schedule is complete or the time is over; ``report`` is called after each saved state.

        Args:
            state: file of the state.
            budget_s: time limit, s.
            report: called with this training.

        Returns:
            Whether the training is complete.

        Raises:
            ConfigError: the state on disk is damaged, or of another model.
            FloatingPointError: the loss became NaN or infinite.
        """
        if state.is_file():
            self._load(state)
        began = saved = time.monotonic()
        since, self._loss = self.step, self._loss.zero_()
        done = self.step >= self.schedule.steps
        for bucket, index in () if done else self._batches():
            self._one_step(bucket, index)
            now = time.monotonic()
            done = self.step == self.schedule.steps
            if done or now - saved > self.schedule.save_every_s or now - began > budget_s:
                mean = float(self._loss) / (self.step - since)
                if not math.isfinite(mean):
                    raise FloatingPointError(f"the loss is {mean} after step {self.step}: lower the learning rate")
                self.seconds += time.monotonic() - saved
                self.losses.append((self.step, mean))
                self._save(state)
                report(self)
                since, saved = self.step, time.monotonic()
                self._loss.zero_()
            if done or now - began > budget_s:
                break
        return done

    def _batches(self) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Yield batches from the current step on; every epoch has every structure, in an order from seed and epoch."""
        per_epoch = sum(-(-len(bucket) // n) for bucket, n in zip(self._buckets, self._n_systems, strict=True))
        epoch, position = divmod(self.step, per_epoch)
        while True:
            rng = np.random.default_rng([self.seed, epoch])
            batches: list[tuple[int, npt.NDArray[np.int64]]] = []
            for number, (bucket, n) in enumerate(zip(self._buckets, self._n_systems, strict=True)):
                order = rng.permutation(len(bucket))
                # The last batch is filled up, so that every batch of a bucket has one shape.
                order = np.concatenate([order, rng.integers(len(bucket), size=-len(order) % n)])
                batches += [(number, chosen) for chosen in order.reshape(-1, n)]
            rng.shuffle(batches)
            yield from batches[position:]
            epoch, position = epoch + 1, 0

    def _one_step(self, number: int, chosen: npt.NDArray[np.int64]) -> None:
        self._learning_rate.fill_(learning_rate(self.step, self.schedule))
        self._ema_weight.fill_(1 - min(self.schedule.ema_decay, (1 + self.step) / (10 + self.step)))
        index = torch.from_numpy(chosen).to(self.device)
        self._seen[number] += 1
        if self.device.type != "cuda":
            self._update(number, index)
        elif self._seen[number] <= 2:
            with side_stream(self.device):
                self._update(number, index)
        else:
            if number not in self._graphs:
                static = index.clone()
                graph, _ = capture(functools.partial(self._update, number, static), self.device)
                self._graphs[number] = (graph, static)
            graph, static = self._graphs[number]
            static.copy_(index)
            graph.replay()
        self.step += 1

    def _update(self, number: int, index: Tensor) -> None:
        with matmul_precision("tf32" if self.device.type == "cuda" else "fp32"):
            loss = _loss(self.model, self._buckets[number].take(index), self.schedule.energy_weight)
            gradients = torch.autograd.grad(loss, self._parameters)
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        scale = (MAX_GRADIENT_NORM / (norm + 1e-6)).clamp(max=1.0)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient * scale
        self._optimizer.step()
        self._loss += loss.detach()
        with torch.no_grad():
            for mean, current in zip(self.averaged.parameters(), self._parameters, strict=True):
                mean.lerp_(current, self._ema_weight)

    def _save(self, path: Path) -> None:
        TrainingState(
            model=self.model.state_dict(),
            averaged=self.averaged.state_dict(),
            optimizer=self._optimizer.state_dict(),
            step=self.step,
            losses=self.losses,
            seconds=self.seconds,
        ).save(path)

    def _load(self, path: Path) -> None:
        state = TrainingState.load(path, _shapes(self.model))
        self.model.load_state_dict(state.model)
        self.averaged.load_state_dict(state.averaged)
        try:
            self._optimizer.load_state_dict(dict(state.optimizer))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} holds no state of this training: its optimizer: {error}") from error
        # The optimizer must keep reading the tensor that the schedule writes.
        self._optimizer.param_groups[0]["lr"] = self._learning_rate
        self.step, self.losses, self.seconds = state.step, list(state.losses), state.seconds


def load_averaged(model: PaiNN, state: Path) -> None:
    """Load the averaged weights of a training on disk into a model, in place.

    Raises:
        ConfigError: the file is damaged, or of another model.
    """
    model.load_state_dict(TrainingState.load(state, _shapes(model)).averaged)


def _shapes(model: PaiNN) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in model.state_dict().items()}


def predict(model: PaiNN, dataset: Dataset, device: torch.device) -> tuple[Array, Array]:
    """Predict energies [n_structures] eV and forces [sum of counts, 3] eV/Å, in the precision of the weights."""

    def forces(batch: AtomicBatch) -> tuple[Tensor, Tensor]:
        return energy_and_forces(model, batch, "fp32")

    return evaluate(forces, dataset, pack_batches(dataset, model.cutoff, device))


def force_field_errors(model: PaiNN, dataset: Dataset, device: torch.device) -> dict[str, float]:
    """Return the errors of a student against its teacher on a data set, by the names of the metrics."""
    return accuracy_vs_teacher(*predict(model, dataset, device), dataset.energies, dataset.forces, dataset.counts)


def learning_rate(step: int, schedule: Schedule) -> float:
    """Return the learning rate at a step: linear warm-up, then half a cosine."""
    warmup_steps = max(1, schedule.steps // 50)
    if step < warmup_steps:
        return schedule.learning_rate * (step + 1) / warmup_steps
    fraction = (step - warmup_steps) / max(1, schedule.steps - warmup_steps)
    return schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, fraction)))


def _loss(model: PaiNN, labelled: LabelledBatch, energy_weight: float) -> Tensor:
    energies, forces = energy_and_forces(model, labelled.batch, "fp32", differentiable=True)
    real = labelled.batch.is_atom
    counts = labelled.batch.per_system(real).sum(dim=1)
    energy_error = (energies - labelled.energies) / counts
    # Norms instead of squares: a few distorted structures would otherwise dominate. Padding adds a constant.
    force_error = ((forces - labelled.forces).square().sum(dim=-1) + 1e-8).sqrt()
    return force_error.sum() / counts.sum() + energy_weight * energy_error.abs().mean()
