"""Sample molecules, label them with the teacher, train a student, let it explore, label again, train on.

Everything that takes long is kept in ``task.directory``, whole or not at all: a run that was interrupted or whose
time was up goes on where it stopped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mlff_exp import checkpoint, exploration, labelling, molecules, training
from mlff_exp.config import Config, DistillTask
from mlff_exp.data import Dataset, DatasetError, reference_energies
from mlff_exp.environment import describe
from mlff_exp.exploration import Explored
from mlff_exp.painn import Architecture, PaiNN
from mlff_exp.plots import plot_training
from mlff_exp.result import Progress, RunResult
from mlff_exp.sampling import Sampling
from mlff_exp.training import Schedule, Training

CHECKPOINT_FILE = "student.safetensors"
SMALL_ATOMS = 14  # a molecule that pairs are made of has at most this many
WATCHED_STRUCTURES = 300  # of the validation set, while training


def run(config: Config, directory: Path) -> RunResult:
    """Errors in the metrics are those on the molecules of the validation set."""
    task, device, work = config.task, torch.device(config.device), Path(config.task.directory)
    until = time.monotonic() + task.budget_s
    work.mkdir(parents=True, exist_ok=True)
    failures: Counter[str] = Counter()
    validation_set = _made(work / "validation.npz", lambda: _label_validation(task, config.seed, work, failures))
    _made(_dataset_file(work, 0), lambda: _label_training(task, config.seed, work, failures))

    # Another student on the same data begins where the data is complete.
    number = max(n for n in range(task.rounds + 1) if _dataset_file(work, n).is_file())
    while True:
        dataset = Dataset.load(_dataset_file(work, number))
        if task.data_fraction < 1:
            dataset = dataset.select(np.array([molecules.share(name) < task.data_fraction for name in dataset.names]))
        trained, complete = _train(config, dataset, validation_set, number, until - time.monotonic(), directory)
        if not complete or number == task.rounds:
            break
        number += 1
        _made(_dataset_file(work, number), partial(_explore, config, trained, dataset, number, failures))

    path = directory / CHECKPOINT_FILE
    checkpoint.save(trained.averaged, path, teacher=labelling.TEACHER, training_data_sha256=dataset.sha256)
    plot_training(trained.losses, directory / "training.png")
    return RunResult(
        config={},
        metrics={
            "training_structures": float(len(dataset)),
            "training_steps": float(trained.step),
            "training_loss": trained.losses[-1][1],
            "training_s": trained.seconds,
            **training.errors(trained.averaged, validation_set, device),
        },
        series={"loss": trained.losses},
        environment=describe(device),
        artifacts=(CHECKPOINT_FILE, "training.png"),
        tags={
            "checkpoint.sha256": checkpoint.load(path).weights_sha256,
            "dataset.sha256": dataset.sha256,
            "training.complete": str(complete and number == task.rounds).lower(),
            "training.round": str(number),
            **{f"left_out.{reason}": str(count) for reason, count in failures.items()},
        },
    )


def _made(path: Path, make: Callable[[], Dataset]) -> Dataset:
    if path.is_file():
        return Dataset.load(path)
    dataset = make()
    dataset.save(path)
    return dataset


def _dataset_file(work: Path, number: int) -> Path:
    return work / f"round-{number}.npz"


def _recipe(task: DistillTask, seed: int) -> Sampling:
    chosen = {field.name: getattr(task, field.name) for field in fields(Sampling) if field.name != "seed"}
    return Sampling(**{**chosen, "md_temperatures_k": tuple(task.md_temperatures_k)}, seed=seed)


def _label_training(task: DistillTask, seed: int, work: Path, failures: Counter[str]) -> Dataset:
    listed = molecules.library()["training"]
    chosen = listed if task.molecules is None else listed[: task.molecules]
    recipe = _recipe(task, seed)
    small = [molecule.smiles for molecule in chosen if molecule.n_atoms <= SMALL_ATOMS]
    jobs = labelling.plan([molecule.smiles for molecule in chosen], small, recipe)
    dataset, left_out = labelling.run(jobs, recipe, work / "training", task.workers)
    failures.update(left_out)
    return dataset


def _label_validation(task: DistillTask, seed: int, work: Path, failures: Counter[str]) -> Dataset:
    """From relaxed to 1,000 K, as molecular dynamics would meet them."""
    listed = sorted(molecules.library()["validation"], key=lambda molecule: molecules.share(molecule.key))
    chosen = [molecule.smiles for molecule in listed[: task.validation_molecules]]
    recipe = Sampling(
        normal_modes=0, rattled=0, stretched=0, dimers=0, water_clusters=0, seed=seed + 1,
        md_share=1.0, md_temperatures_k=(300.0, 650.0, 1000.0), md_frames=2, md_stride=100,
    )  # fmt: skip
    jobs = labelling.plan(chosen, [], recipe)
    dataset, left_out = labelling.run(jobs, recipe, work / "validation", task.workers)
    failures.update(left_out)
    return dataset


def _train(
    config: Config, dataset: Dataset, validation_set: Dataset, number: int, budget_s: float, directory: Path
) -> tuple[Training, bool]:
    task, device = config.task, torch.device(config.device)
    last = number == task.rounds
    schedule = Schedule(
        steps=task.steps if last else task.round_steps,
        atoms_per_step=task.atoms_per_step,
        learning_rate=task.learning_rate,
        energy_weight=task.energy_weight,
        ema_decay=task.ema_decay,
    )
    name = f"{task.n_features}-{task.n_interactions}" + (f"-{task.data_fraction:g}" if task.data_fraction < 1 else "")
    state, previous = (Path(task.directory) / f"student-{name}-round-{n}.pt" for n in (number, number - 1))
    torch.manual_seed(config.seed)
    model = PaiNN(Architecture(task.n_features, task.n_interactions), reference_energies(dataset))
    unknown = {str(z) for z in np.setdiff1d(validation_set.atomic_numbers, dataset.atomic_numbers)}
    if unknown:
        raise DatasetError(f"the validation set holds elements that are not trained on: Z = {', '.join(unknown)}")
    if previous.is_file():
        training.continue_from(model, previous)
    trained = Training(model, dataset, schedule, seed=config.seed, device=device)
    every = max(1, len(validation_set) // WATCHED_STRUCTURES)
    watched = validation_set.select(np.arange(len(validation_set)) % every == 0)
    progress = Progress(directory)
    with tqdm(total=schedule.steps, desc=f"training, round {number}", unit="step") as bar:

        def report(current: Training) -> None:
            errors = training.errors(current.averaged, watched, device)
            bar.update(current.step - bar.n)
            bar.set_postfix(loss=f"{current.losses[-1][1]:.4f}", force_mae=f"{errors['force_mae_mev_per_ang']:.1f}")
            progress.write(current.step, {"loss": current.losses[-1][1], **errors})

        complete = trained.run(state, budget_s, report)
    return trained, complete


def _explore(config: Config, trained: Training, dataset: Dataset, number: int, failures: Counter[str]) -> Dataset:
    """The dataset with the frames that the student went to and was worst at."""
    task, device, work = config.task, torch.device(config.device), Path(config.task.directory)
    frames_file = work / f"round-{number}-frames.npz"
    if not frames_file.is_file():
        exploration.explore(
            trained.averaged, dataset, n_frames=task.explored_frames, stride=task.explored_stride,
            seed=config.seed + number, device=device,
        ).save(frames_file)  # fmt: skip
    explored = Explored.load(frames_file)
    labels, left_out = labelling.run(
        labelling.plan_given(explored.names, explored.atoms), Sampling(), work / f"round-{number}", task.workers
    )
    failures.update(left_out)
    _, forces = training.predict(trained.averaged, labels, device)
    squared = np.square(forces - labels.forces).sum(axis=1)
    error = np.sqrt(np.add.reduceat(squared, labels.starts) / labels.counts)
    worst = np.zeros(len(labels), dtype=bool)
    worst[np.argsort(-error)[: task.explored_kept]] = True
    return Dataset.joined([dataset, labels.select(worst)])
