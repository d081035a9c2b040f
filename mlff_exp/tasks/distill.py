"""Sample molecules, label them with the teacher, train a student and write its checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from tqdm import tqdm

from mlff_exp import checkpoint, data, training
from mlff_exp.config import Config, ConfigError
from mlff_exp.environment import describe
from mlff_exp.painn import Architecture, PaiNN
from mlff_exp.plots import plot_training
from mlff_exp.result import RunResult

CHECKPOINT_FILE = "student.safetensors"
DATASET_FILE = "dataset.npz"


def run(config: Config, directory: Path) -> RunResult:
    """Errors in the metrics are those on the held-out molecules."""
    task, device = config.task, torch.device(config.device)
    dataset = _dataset(config, directory)
    held_out = np.isin(dataset.names, task.held_out)
    training_set, validation_set = dataset.select(~held_out), dataset.select(held_out)

    torch.manual_seed(config.seed)
    architecture = Architecture(n_features=task.n_features, n_interactions=task.n_interactions)
    student = PaiNN(architecture, data.reference_energies(training_set))
    try:
        student.check_elements(chemical_symbols[number] for number in validation_set.atomic_numbers)
    except ValueError as error:
        raise ConfigError(f"task.held_out: {error}") from error
    schedule = training.Schedule(
        steps=task.steps,
        atoms_per_step=task.atoms_per_step,
        learning_rate=task.learning_rate,
        energy_weight=task.energy_weight,
        ema_decay=task.ema_decay,
        log_every=task.log_every,
    )
    path = directory / CHECKPOINT_FILE
    losses: list[tuple[int, float]] = []
    with tqdm(total=task.steps, desc="training", unit="step", leave=False) as bar:

        def report(step: int, loss: float, averaged: PaiNN) -> None:
            losses.append((step, loss))
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{loss:.4f}")
            checkpoint.save(averaged, path, teacher=data.TEACHER, training_data_sha256=training_set.sha256)

        student = training.train(student, training_set, schedule, seed=config.seed, device=device, report=report)

    metrics = {"training_structures": float(len(training_set)), "training_loss": losses[-1][1]}
    if len(validation_set):
        metrics |= dataclasses.asdict(training.evaluate(student, validation_set, device))
    plot_training(losses, directory / "training.png")
    return RunResult(
        config={},
        metrics=metrics,
        series={"loss": losses},
        environment=describe(device),
        artifacts=(CHECKPOINT_FILE, "training.png"),
        tags={"checkpoint.sha256": checkpoint.load(path).weights_sha256, "dataset.sha256": training_set.sha256},
    )


def _dataset(config: Config, directory: Path) -> data.Dataset:
    """The one given, or a new one, kept beside the checkpoint."""
    task = config.task
    if task.dataset is not None:
        path = Path(task.dataset).expanduser()
        if not path.is_file():
            raise ConfigError(f"task.dataset={task.dataset!r} is not a file")
        return data.Dataset.load(path)
    sampling = data.Sampling(
        md_temperatures_k=tuple(task.md_temperatures_k),
        md_frames=task.md_frames,
        md_stride=task.md_stride,
        rattled=task.rattled,
        scaled=task.scaled,
        dimers=task.dimers,
        water_clusters=task.water_clusters,
        seed=config.seed,
    )
    dataset = data.generate(task.molecules, sampling, task.workers)
    dataset.save(directory / DATASET_FILE)
    return dataset
