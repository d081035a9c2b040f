"""Label sampled structures by the teacher, in parallel; each job runs once, even if processes are killed in between.

Teacher: GFN2-xTB (Bannwarth, Ehlert & Grimme, doi:10.1021/acs.jctc.8b01176) through `tblite`. Any user can install and
run it, so every label can be made again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator

from mlff_exp.common import atomic_write, progress_bar, refuse_irregular
from mlff_exp.config import ConfigError
from mlff_exp.distill.sampling import (
    Sampling,
    SamplingError,
    reduce_for_analogues,
    sample_molecule,
    sample_pairs,
    sample_water,
)
from mlff_exp.structures import RESOLUTION, Dataset, LabelledStructure, Origin, Shard, quantise

TEACHER = "GFN2-xTB (tblite, accuracy 0.1)"
MAX_FORCE_EV_PER_ANG = 30.0  # above this the electronic structure of the teacher is not reliable
MIN_DISTANCE_ANG = 0.5
PAIRS_PER_JOB = 20
FRAMES_PER_JOB = 100
RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class Job:
    """The structures that one process labels before it writes a file.

    Attributes:
        name: name of the job and of its file.
        kind: kind of structures.
        smiles: the molecules.
        seed: random seed.
        given: origin and structure, for a job of given structures.
    """

    name: str
    kind: Literal["molecule", "analogue", "pairs", "water", "given"]
    smiles: tuple[str, ...]
    seed: tuple[int, int] = (0, 0)
    given: tuple[tuple[Origin, Atoms], ...] = ()


def make_jobs(molecules: Sequence[str], analogues: Sequence[str], small: Sequence[str], recipe: Sampling) -> list[Job]:
    """Make the jobs of a recipe: each molecule, each analogue, pairs of small molecules, and water clusters."""
    jobs = [Job(f"molecule-{i:05d}", "molecule", (one,), (recipe.seed, i)) for i, one in enumerate(molecules)]
    rng = np.random.default_rng(recipe.seed)
    for index in range(recipe.dimers // PAIRS_PER_JOB):
        pairs = tuple(str(one) for one in rng.choice(small, size=2 * PAIRS_PER_JOB))
        jobs.append(Job(f"pairs-{index:05d}", "pairs", pairs, (recipe.seed, 100_000 + index)))
    for index, one in enumerate(analogues):
        jobs.append(Job(f"analogue-{index:05d}", "analogue", (one,), (recipe.seed, 300_000 + index)))
    return jobs + [
        Job(f"water-{index:05d}", "water", ("O",) * (2 + index % 5), (recipe.seed, 200_000 + index))
        for index in range(recipe.water_clusters)
    ]


def make_frame_jobs(names: Sequence[str], frames: Sequence[Atoms], exploded: Sequence[bool]) -> list[Job]:
    """Make the jobs for explored frames.

    Args:
        names: [n_frames] SMILES.
        frames: [n_frames] structures.
        exploded: [n_frames], whether the student's trajectory broke there.
    """
    origins: list[Origin] = ["student_exploded" if broke else "student_md" for broke in exploded]
    given = list(zip(origins, frames, strict=True))
    return [
        Job(
            f"given-{first:06d}",
            "given",
            tuple(names[first : first + FRAMES_PER_JOB]),
            given=tuple(given[first : first + FRAMES_PER_JOB]),
        )
        for first in range(0, len(frames), FRAMES_PER_JOB)
    ]


def label_structures(
    jobs: Sequence[Job], recipe: Sampling, directory: Path, workers: int
) -> tuple[Dataset, Counter[str]]:
    """Label what is not labelled yet; the dataset is in the order of the jobs.

    Args:
        jobs: from `make_jobs` or `make_frame_jobs`.
        recipe: the same at every call for one directory.
        directory: has a file for each finished job.
        workers: number of processes.

    Returns:
        The structures, and how many were left out for which reason.

    Raises:
        ConfigError: the directory has labels of another recipe.
        RuntimeError: a process was killed; another call continues.
    """
    _check_recipe(jobs, recipe, directory)
    missing = [job for job in jobs if not _path(directory, job).is_file()]
    context = multiprocessing.get_context("spawn")
    bar = progress_bar(total=len(jobs), initial=len(jobs) - len(missing), desc="labelling", unit="job", smoothing=0.02)
    with bar, ProcessPoolExecutor(workers, context, initializer=_one_thread) as pool:
        try:
            for finished in as_completed([pool.submit(_run_job, job, recipe, directory) for job in missing]):
                finished.result()
                bar.update()
        except BrokenProcessPool:
            raise RuntimeError("a labelling process was killed: what is done is kept, run again to go on") from None
    shards = [Shard.load(_path(directory, job)) for job in jobs]
    failures = sum((shard.failures for shard in shards), Counter())
    return Dataset.concatenate([shard.dataset for shard in shards if shard.dataset is not None]), failures


def _check_recipe(jobs: Sequence[Job], recipe: Sampling, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / RECIPE_FILE
    text = json.dumps({"sampling": asdict(recipe), "jobs": [job.smiles for job in jobs]}, indent=0)
    try:
        refuse_irregular(path)
        recorded = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        atomic_write(path, text)
        return
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read: {error}; choose another task.directory") from error
    if recorded != text:
        raise ConfigError(f"{directory} holds labels of another recipe; choose another task.directory")


def _path(directory: Path, job: Job) -> Path:
    return directory / f"{job.name}.npz"


def _one_thread() -> None:
    # Set before tblite is loaded; more threads than cores would wait for each other.
    os.environ["OMP_NUM_THREADS"] = "1"


def _run_job(job: Job, recipe: Sampling, directory: Path) -> None:
    rng = np.random.default_rng(job.seed)
    failures: Counter[str] = Counter()
    structures: list[tuple[Origin, Atoms]] = []
    try:
        match job.kind:
            case "molecule":
                structures = sample_molecule(job.smiles[0], recipe, teacher_calculator, rng)
            case "analogue":
                structures = sample_molecule(job.smiles[0], reduce_for_analogues(recipe), teacher_calculator, rng)
            case "pairs":
                structures = sample_pairs(job.smiles, rng)
            case "water":
                structures = sample_water(len(job.smiles), recipe, teacher_calculator, rng)
            case "given":
                structures = list(job.given)
    except SamplingError as error:
        failures[str(error)] += 1
    names = _names(job, len(structures))
    frames = [
        label_structure(name, origin, atoms, failures) for name, (origin, atoms) in zip(names, structures, strict=True)
    ]
    kept = [frame for frame in frames if frame is not None]
    Shard(Dataset.from_structures(kept) if kept else None, failures).save(_path(directory, job))


def _names(job: Job, n_structures: int) -> list[str]:
    if job.kind == "given":
        return list(job.smiles)
    if job.kind == "pairs":
        return [f"{a}.{b}" for a, b in zip(job.smiles[::2], job.smiles[1::2], strict=True)][:n_structures]
    return [".".join(job.smiles)] * n_structures


def label_structure(name: str, origin: Origin, atoms: Atoms, failures: Counter[str]) -> LabelledStructure | None:
    """Return a structure with the teacher's energy and forces, or None with the reason counted in ``failures``."""
    steps = quantise(atoms.positions - atoms.positions.mean(axis=0))
    rounded = Atoms(atoms.numbers, steps * RESOLUTION)
    distances = rounded.get_all_distances()[~np.eye(len(atoms), dtype=bool)]
    if distances.min(initial=np.inf) < MIN_DISTANCE_ANG:
        failures[f"atoms closer than {MIN_DISTANCE_ANG} Å"] += 1
        return None
    for guess in ("sad", "eeq"):
        rounded.calc = teacher_calculator(guess)
        try:
            forces = rounded.get_forces()
            energy = float(rounded.get_potential_energy())
        except CalculationFailed:
            continue
        if not np.abs(forces).max() <= MAX_FORCE_EV_PER_ANG:
            failures[f"a force above {MAX_FORCE_EV_PER_ANG:g} eV/Å"] += 1
            return None
        return LabelledStructure(name, origin, atoms.numbers.astype(np.int64), steps, energy, forces)
    failures["no self-consistent solution"] += 1
    return None


def teacher_calculator(guess: Literal["sad", "eeq"] = "sad") -> Calculator:
    """Return the teacher as an ASE calculator.

    Accuracy 0.1 instead of tblite's default 1.0, which is too loose to conserve energy in MD.

    Args:
        guess: initial guess of the charges in tblite.

    Raises:
        ConfigError: tblite is not installed.
    """
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise ConfigError("the GFN2-xTB teacher needs tblite: pip install 'mlff-exp[distill]'") from error
    return TBLite(method="GFN2-xTB", accuracy=0.1, verbosity=0, guess=guess)
