"""Sample molecules, label them with the teacher, train a student, let it explore, label again, train on.

Everything that takes long is kept in ``task.directory``, in files that are written in one atomic step. A run that was
interrupted or used up its time continues where it stopped.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mlff_exp.common import DISK_ERRORS, atomic_write, progress_bar, read_json, typed_value
from mlff_exp.config import Config, ConfigError, shown
from mlff_exp.distill import (
    TEACHER,
    ExploredFrames,
    Sampling,
    Schedule,
    Training,
    explore,
    force_field_errors,
    hash_fraction,
    label_structures,
    load_averaged,
    make_frame_jobs,
    make_jobs,
    molecule_library,
    predict,
    select_worst,
)
from mlff_exp.measure import describe_machine
from mlff_exp.models import Architecture, PaiNN, load_checkpoint, save_checkpoint
from mlff_exp.report import plot_training
from mlff_exp.results import Progress, RunResult
from mlff_exp.structures import ORIGINS, Dataset, DatasetError, reference_energies
from mlff_exp.tasks.options import DistillTask
from mlff_exp.tasks.showing import Keep, keep_nothing, with_files

CHECKPOINT_FILE = "student.safetensors"
SMALL_ATOMS = 14  # pairs are made of molecules with at most this many atoms
WATCHED_STRUCTURES = 300  # structures of the validation set that are evaluated during the training
LEFT_OUT_SUFFIX = ".left_out.json"


def run(config: Config, directory: Path, keep: Keep = keep_nothing) -> RunResult:
    """Make the data, train a student, and measure its errors on the molecules of the validation set.

    Args:
        config: the configuration.
        directory: the directory of the run, which gets the checkpoint.
        keep: function that gets the result before the figure is written.

    Raises:
        ConfigError: a file of an earlier run in ``task.directory`` is broken, or its data is not that of the task.
    """
    try:
        return _distil(config, directory, keep)
    except DatasetError as error:
        raise ConfigError(f"task.directory={config.task.directory}: {error}") from error


def _distil(config: Config, directory: Path, keep: Keep) -> RunResult:
    task, device, work = config.task, torch.device(config.device), Path(config.task.directory)
    until = time.monotonic() + task.budget_s
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        raise ConfigError(f"task.directory={shown(work)} can't be made: {error.strerror}") from error
    validation_set = _made(work / "validation.npz", lambda: _label_validation(task, config.seed, work))
    _made(_dataset_file(work, 0), lambda: _label_training(task, config.seed, work))

    # Another student on the same data begins where the data is complete.
    number = max(n for n in range(task.rounds + 1) if _dataset_file(work, n).is_file())
    if task.data_fraction < 1 and number < task.rounds:
        raise ConfigError(
            f"task.data_fraction={task.data_fraction:g} needs the data of all rounds, and {work} holds {number} "
            f"of {task.rounds}: run task.data_fraction=1 first"
        )
    while True:
        dataset = Dataset.load(_dataset_file(work, number))
        if task.data_fraction < 1:
            dataset = dataset.select(np.array([hash_fraction(name) < task.data_fraction for name in dataset.names]))
        trained, complete = _train(config, dataset, validation_set, number, until - time.monotonic(), directory)
        if not complete or number == task.rounds:
            break
        number += 1
        _made(_dataset_file(work, number), partial(_explore, config, trained, dataset, number))

    path = directory / CHECKPOINT_FILE
    save_checkpoint(trained.averaged, path, teacher=TEACHER, training_data_sha256=dataset.sha256)
    result = RunResult(
        config={},
        metrics={
            "training_structures": float(len(dataset)),
            "training_steps": float(trained.step),
            "training_loss": trained.losses[-1][1],
            "training_s": trained.seconds,
            **force_field_errors(trained.averaged, validation_set, device),
        },
        series={"loss": trained.losses},
        environment=describe_machine(device),
        artifacts=(CHECKPOINT_FILE,),
        tags={
            "checkpoint.sha256": load_checkpoint(path).weights_sha256,
            "dataset.sha256": dataset.sha256,
            "training.complete": str(complete and number == task.rounds).lower(),
            "training.round": str(number),
            **{f"left_out.{reason}": str(count) for reason, count in _left_out(work).items()},
        },
    )
    keep(result)
    return with_files(result, directory, {"training.png": partial(plot_training, trained.losses)})


def _made(path: Path, make: Callable[[], tuple[Dataset, Counter[str]]]) -> Dataset:
    """Load a dataset from its file. If there is none, make it and write how many structures were left out."""
    if not path.is_file():
        dataset, left_out = make()
        atomic_write(path.with_suffix(LEFT_OUT_SUFFIX), json.dumps(left_out, ensure_ascii=False))
        dataset.save(path)
    return Dataset.load(path)


def _left_out(work: Path) -> Counter[str]:
    files = sorted(work.glob(f"*{LEFT_OUT_SUFFIX}"))
    counts: Counter[str] = Counter()
    for file in files:
        try:
            counts.update(typed_value(Mapping[str, int], read_json(file), "it"))
        except ValueError as error:
            raise DatasetError(f"{file} is broken: {error}") from error
    return counts


def _dataset_file(work: Path, number: int) -> Path:
    return work / f"round-{number}.npz"


def _recipe(task: DistillTask, seed: int) -> Sampling:
    chosen = {field.name: getattr(task, field.name) for field in fields(Sampling) if field.name != "seed"}
    return Sampling(**{**chosen, "md_temperatures_k": tuple(task.md_temperatures_k)}, seed=seed)


def _label_training(task: DistillTask, seed: int, work: Path) -> tuple[Dataset, Counter[str]]:
    library, recipe = molecule_library(), _recipe(task, seed)
    chosen, analogues = library["training"][: task.molecules], library["analogues"][: task.analogues]
    small = [molecule.smiles for molecule in chosen if molecule.n_atoms <= SMALL_ATOMS]
    jobs = make_jobs([one.smiles for one in chosen], [one.smiles for one in analogues], small, recipe)
    return label_structures(jobs, recipe, work / "training", task.workers)


def _label_validation(task: DistillTask, seed: int, work: Path) -> tuple[Dataset, Counter[str]]:
    """Label the validation molecules, relaxed and along dynamics up to 1,000 K."""
    listed = sorted(molecule_library()["validation"], key=lambda molecule: hash_fraction(molecule.key))
    chosen = [molecule.smiles for molecule in listed[: task.validation_molecules]]
    recipe = Sampling(
        normal_modes=0, rattled=0, stretched=0, dimers=0, water_clusters=0, seed=seed + 1,
        md_share=1.0, md_temperatures_k=(300.0, 650.0, 1000.0), md_frames=2, md_stride=100,
    )  # fmt: skip
    jobs = make_jobs(chosen, [], [], recipe)
    return label_structures(jobs, recipe, work / "validation", task.workers)


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
        load_averaged(model, previous)
    trained = Training(model, dataset, schedule, seed=config.seed, device=device)
    every = max(1, len(validation_set) // WATCHED_STRUCTURES)
    watched = validation_set.select(np.arange(len(validation_set)) % every == 0)
    progress = Progress(directory)
    with progress_bar(total=schedule.steps, desc=f"training, round {number}", unit="step") as bar:

        def report(current: Training) -> None:
            errors = force_field_errors(current.averaged, watched, device)
            bar.update(current.step - bar.n)
            loss, error = current.losses[-1][1], errors["force_mae_mev_per_ang"]
            bar.set_postfix_str(f"loss {loss:.4f}, force MAE {error:.1f} meV/Å")
            # A name of their own, or MLflow would show them instead of the errors on the complete set.
            seen = {f"{metric}/watched": value for metric, value in errors.items()}
            progress.write(current.step, {"loss": current.losses[-1][1], **seen})

        complete = trained.run(state, budget_s, report)
    return trained, complete


def _explore(config: Config, trained: Training, dataset: Dataset, number: int) -> tuple[Dataset, Counter[str]]:
    """Add frames of the student's dynamics to a dataset: first those where it broke, then those with large errors."""
    task, device, work = config.task, torch.device(config.device), Path(config.task.directory)
    frames_file = work / f"round-{number}-frames.npz"
    if not frames_file.is_file():
        explore(
            trained.averaged, dataset, n_frames=task.explored_frames, stride=task.explored_stride,
            seed=config.seed + number, device=device,
        ).save(frames_file)  # fmt: skip
    explored = ExploredFrames.load(frames_file)
    jobs = make_frame_jobs(explored.names, explored.atoms, explored.exploded.tolist())
    labels, left_out = label_structures(jobs, Sampling(), work / f"round-{number}", task.workers)
    _, forces = predict(trained.averaged, labels, device)
    squared = np.square(forces - labels.forces).sum(axis=1)
    error = np.sqrt(np.add.reduceat(squared, labels.starts) / labels.counts)
    exploded = labels.origin == ORIGINS.index("student_exploded")
    kept = select_worst(exploded, error, task.explored_kept)
    return Dataset.concatenate([dataset, labels.select(kept)]), left_out
