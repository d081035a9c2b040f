"""Errors of an engine on a labelled set, against eager FP64 of the same weights and against the teacher's labels."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from ase.data import chemical_symbols
from torch import Tensor

from mlff_exp.common import expand_home
from mlff_exp.config import Config, ConfigError
from mlff_exp.engines import REFERENCE_ENGINE, Engine, make_engine
from mlff_exp.measure import accuracy_vs_fp64, accuracy_vs_teacher, describe_machine
from mlff_exp.report import plot_accuracy
from mlff_exp.results import RunResult, model_word
from mlff_exp.structures import (
    VALIDATION,
    AtomicBatch,
    Dataset,
    check_all_apart,
    evaluate,
    pack_batches,
    reference_energies,
)
from mlff_exp.tasks.isolated import isolated_energies
from mlff_exp.tasks.setup import ModelUnderTest, prepare_model, refuse_no_force_field
from mlff_exp.tasks.showing import Keep, keep_nothing, with_files

Array = npt.NDArray[np.float64]

SLOT_STEP = 8  # few shapes, because each is compiled
SIZES = ((2, 8), (9, 16), (17, 24), (25, 32), (33, 64))
TABLE_FILE = "accuracy.csv"


def run(config: Config, directory: Path, keep: Keep = keep_nothing) -> RunResult:
    """Measure the errors on the complete set, by size of the molecule and by element.

    Args:
        config: the configuration.
        directory: the directory of the run.
        keep: function that gets the result before tables and figures are written.

    Returns:
        The result, with the files that could be written.

    Raises:
        ConfigError: the model or the dataset can't be used.
        FloatingPointError: an energy or a force is NaN or infinite.
    """
    tested = prepare_model(config)
    engine, checkpoint = tested.engine, tested.checkpoint
    dataset = _dataset(config, tested)
    energy, forces = _evaluate(engine, dataset, config)
    exact = None
    if checkpoint is not None:
        reference = make_engine(checkpoint.model, REFERENCE_ENGINE, "fp64", tested.device)
        exact = _evaluate(reference, dataset, config)
        of_atoms = isolated_energies(reference, np.unique(dataset.atomic_numbers))[dataset.atomic_numbers]
        isolated = np.add.reduceat(of_atoms, dataset.starts)

    def metrics(structures: npt.NDArray[np.bool_], atoms: npt.NDArray[np.bool_]) -> dict[str, float]:
        counts = dataset.counts[structures]
        ours, labels = (energy[structures], forces[atoms]), (dataset.energies[structures], dataset.forces[atoms])
        found = accuracy_vs_teacher(*ours, *labels, counts)
        if exact is not None:
            found |= accuracy_vs_fp64(*ours, exact[0][structures], exact[1][atoms], counts, isolated[structures])
        return found

    everything = np.ones(len(dataset), dtype=bool)
    has_forces = np.repeat(dataset.counts > 1, dataset.counts)  # the force on a single atom is zero in any model
    table = {"all": metrics(everything, has_forces)}
    for smallest, largest in SIZES:
        chosen = (dataset.counts >= smallest) & (dataset.counts <= largest)
        if chosen.any():
            table[f"atoms/{smallest}-{largest}"] = metrics(chosen, np.repeat(chosen, dataset.counts) & has_forces)
    for number in np.unique(dataset.atomic_numbers):
        # Energies of the structures that hold the element, forces on its atoms.
        atoms = dataset.atomic_numbers == number
        holds = np.add.reduceat(atoms, dataset.starts) > 0
        table[f"element/{chemical_symbols[number]}"] = metrics(holds, atoms & has_forces)

    flat = {name if part == "all" else f"{name}/{part}": v for part, m in table.items() for name, v in m.items()}
    result = RunResult(
        config={},
        metrics={"structures": float(len(dataset)), "graph_count": float(engine.compiled_graphs), **flat},
        environment=describe_machine(tested.device),
        tags={**tested.tags, "dataset.sha256": dataset.sha256},
    )
    keep(result)
    plot = partial(plot_accuracy, dataset, energy, forces, reference_energies(dataset))
    return with_files(result, directory, {TABLE_FILE: partial(_write, table), "accuracy.png": plot})


def batches(config: Config, tested: ModelUnderTest) -> Iterator[AtomicBatch]:
    """Yield every batch that the engine evaluates.

    Args:
        config: the configuration.
        tested: the model under test.
    """
    for _, batch in _packed(config, tested.engine, _dataset(config, tested)):
        yield batch


def _packed(config: Config, engine: Engine, dataset: Dataset) -> Iterator[tuple[npt.NDArray[np.int64], AtomicBatch]]:
    return pack_batches(
        dataset, engine.cutoff, torch.device(config.device), slot_step=SLOT_STEP, n_systems=config.batch_size
    )


def _dataset(config: Config, tested: ModelUnderTest) -> Dataset:
    name, known = config.task.dataset, None if tested.checkpoint is None else tested.checkpoint.model.elements
    path = VALIDATION if name == "validation" else expand_home(name)
    try:
        dataset = Dataset.load(path)
        check_all_apart(dataset)
    except ValueError as error:
        raise ConfigError(f"task.dataset={name!r}: {error}") from error
    unknown = sorted({chemical_symbols[number] for number in dataset.atomic_numbers} - set(known or chemical_symbols))
    if known is not None and unknown:
        raise ConfigError(
            f"task.dataset={name!r} holds {', '.join(unknown)}, which the model {model_word(asdict(config.model))} was "
            f"not trained on; it knows {', '.join(known)}"
        )
    refuse_no_force_field(tested, dataset.atoms(0), f"the first structure of task.dataset={name!r}")
    return dataset


def _evaluate(engine: Engine, dataset: Dataset, config: Config) -> tuple[Array, Array]:
    """Evaluate energies [n_structures] eV and forces [n_atoms, 3] eV/Å of the dataset.

    Raises:
        FloatingPointError: a value is NaN or infinite; the message names the structure.
    """

    def function(batch: AtomicBatch) -> tuple[Tensor, Tensor]:
        prediction = engine(batch)
        return prediction.energy, prediction.forces

    energies, forces = evaluate(function, dataset, _packed(config, engine, dataset))
    bad = ~np.isfinite(energies) | (np.add.reduceat(~np.isfinite(forces).all(axis=1), dataset.starts) > 0)
    if bad.any():
        first = int(bad.argmax())
        raise FloatingPointError(
            f"{engine.name} at {engine.precision} gave NaN or infinite energies or forces for {bad.sum()} structures; "
            f"the first is number {first}, {dataset.names[first]}: use a wider precision"
        )
    return energies, forces


def _write(table: dict[str, dict[str, float]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["part", *table["all"]])
        for part, metrics in table.items():
            # R² has no value where all labels are equal.
            writer.writerow([part, *(f"{metrics[name]:.6g}" if name in metrics else "" for name in table["all"])])
