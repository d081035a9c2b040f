"""Resume a sweep: find the finished jobs, and rename the directories of the others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mlff_exp.common import mask_secrets, refuse_irregular
from mlff_exp.config import ConfigError, changed_keys
from mlff_exp.results import RESULT_FILE, ResultError, RunResult, run_directories
from mlff_exp.runs.preparing import Job, refuse_gates_that_cannot_run
from mlff_exp.tracking import SWEEP_FILE, Store, fail_replaced_run, find_run_directory

N_JOBS = "n_jobs"  # key in the file of a sweep: number of its runs


def directory_to_resume(store: Store | None, resume: str) -> Path:
    """Return the directory of the sweep that ``sweep.resume`` names.

    Raises:
        ConfigError: no sweep started there.
    """
    directory = find_run_directory(store, "sweep.resume", resume)
    if not (directory / SWEEP_FILE).is_file():
        raise ConfigError(f"sweep.resume={directory}: no sweep began there: it has no {SWEEP_FILE}")
    return directory


def refuse_other_number(n_jobs: int, directory: Path) -> None:
    """Refuse to resume a sweep with another number of jobs, because its report shows all of them.

    Args:
        n_jobs: number of jobs of the present words.
        directory: directory of the sweep.

    Raises:
        ConfigError: the message gives both numbers.
    """
    began = _began_with(directory)
    if began is None:  # of an earlier version; its directories tell the least that it was
        began = max(n_jobs, 1 + max(run_directories(directory), default=-1))
    if n_jobs != began:
        raise ConfigError(
            f"sweep.resume={directory}: the sweep has {began} runs, and these words come to {n_jobs}: give the words "
            "that it began with"
        )


def _began_with(directory: Path) -> int | None:
    try:
        number = _recorded(directory).get(N_JOBS)
    except ValueError as error:
        raise ConfigError(f"sweep.resume={directory}: {SWEEP_FILE} can't be read") from error
    return number if isinstance(number, int) else None


def recorded_sweep_name(directory: Path) -> str | None:
    """Return the name of a sweep from the configuration that it recorded.

    Args:
        directory: directory of the sweep.

    Returns:
        The name, or None if no name is recorded there.

    Raises:
        ValueError: the record is damaged.
    """
    path = directory / SWEEP_FILE
    if not path.exists() or path.stat().st_size == 0:  # a sweep that has only begun has an empty one
        return None
    sweep = _recorded(directory).get("sweep")
    name = sweep.get("name") if isinstance(sweep, dict) else None
    return name if isinstance(name, str) and name else None


def number_of_jobs(directory: Path) -> int | None:
    """Return the number of runs that a sweep began with; None if its record is missing, damaged or of earlier versions.

    Args:
        directory: directory of the sweep.
    """
    try:
        return _began_with(directory) if (directory / SWEEP_FILE).is_file() else None
    except ConfigError:
        return None


def _recorded(directory: Path) -> dict[Any, Any]:
    """Read the record of a sweep.

    Raises:
        ValueError: the file can't be read or is no YAML.
    """
    path = directory / SWEEP_FILE
    if path.is_file() and path.stat().st_size == 0:  # the sweep was killed before its first run
        return {}
    try:
        refuse_irregular(path)
        recorded = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{path} can't be read") from error
    return recorded if isinstance(recorded, dict) else {}


def find_done_jobs(jobs: Sequence[Job], directory: Path, store: Store | None = None) -> set[int]:
    """Return the numbers of finished jobs; the directories of unfinished and of damaged attempts are renamed.

    Args:
        jobs: all jobs of the sweep.
        directory: directory of the sweep.
        store: where damaged attempts may stand as finished runs, or None.

    Raises:
        ConfigError: a finished job had another configuration.
        UnavailableError: an unfinished job is a gate that can't run here.
    """
    done, failed = set(), []
    for number, job in enumerate(jobs):
        run_directory = directory / str(number)
        if not run_directory.is_dir():
            continue
        result = _recorded_result(run_directory)
        if result is None or not _is_done(result, job):
            failed.append(run_directory)
            continue
        if different := changed_keys(result.config, job.resolved):
            raise ConfigError(f"sweep.resume={directory}: run {number} was another one: {'; '.join(different[:5])}")
        done.add(number)
    refuse_gates_that_cannot_run(job for number, job in enumerate(jobs) if number not in done)
    for run_directory in failed:
        if store is not None:
            fail_replaced_run(store, run_directory)
        attempt = len(list(directory.glob(f"{run_directory.name}.attempt*")))
        run_directory.rename(run_directory.with_name(f"{run_directory.name}.attempt{attempt}"))
    return done


def _recorded_result(directory: Path) -> RunResult | None:
    """Return the result of a run; None if it left none, or none that can be read, which is said."""
    if not (directory / RESULT_FILE).exists():
        return None
    try:
        return RunResult.load(directory)
    except ResultError as error:
        print(f"mlff-exp: {mask_secrets(str(error))}; this run starts again", file=sys.stderr)
        return None


def _is_done(result: RunResult, job: Job) -> bool:
    """Return whether a job finished, or was skipped and would be skipped again."""
    still_unavailable = result.status == "SKIPPED" and job.unavailable is not None and not job.gate
    return result.failure is None or still_unavailable
