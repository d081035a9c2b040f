"""Check the directories of runs and sweeps: each has its own, without files of another run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mlff_exp.config import ConfigError
from mlff_exp.results import NUMBER, PROGRESS_FILE, RESULT_FILE, STATE_FILE
from mlff_exp.tracking import CONFIG_FILE, SWEEP_FILE

REPORT_FILE = "report.html"
# Settings of Hydra that would move files, and why they are refused.
REFUSED = {
    "hydra.job.num": "the sweep numbers its jobs",
    "hydra.job.id": "the sweep numbers its jobs",
    "hydra.job.override_dirname": "Hydra finds it out",
    "hydra.job.config_name": "Hydra finds it out",
    "hydra.runtime.": "Hydra finds it out",
    "hydra.overrides.": "Hydra finds it out",
}
REFUSED_BY_MODE = {
    True: ("hydra.sweep.", "the directory of a single run is hydra.run.dir"),
    False: ("hydra.run.", "the directory of a sweep is hydra.sweep.dir"),
}


def refuse_moved(node: Any, *, single: bool) -> None:
    """Refuse settings of Hydra that would put files into other places than this project expects.

    Args:
        node: ``hydra`` in the composed configuration.
        single: whether it is a single run or a sweep.

    Raises:
        ConfigError: the message names the setting and what to use instead.
    """
    hydra: Any = OmegaConf.to_container(node)
    if hydra["job"].get("chdir") not in (None, False):
        raise ConfigError("hydra.job.chdir=true: every run would have a store of its own; leave it false")
    if hydra.get("output_subdir") is not None:
        raise ConfigError(
            f"hydra.output_subdir={hydra['output_subdir']}: {CONFIG_FILE} in the run's directory says all that Hydra's "
            "own files would, without passwords; leave it null"
        )
    if not single and str(hydra["sweep"].get("subdir")) != "${hydra.job.num}":
        raise ConfigError(
            f"hydra.sweep.subdir={hydra['sweep'].get('subdir')}: a run's directory is its number in the sweep's; "
            "leave it ${hydra.job.num}"
        )
    other, instead = REFUSED_BY_MODE[single]
    for word in hydra["overrides"]["hydra"]:
        key = re.split("[=@]", word.lstrip("+~"), maxsplit=1)[0]
        for refused, reason in {**REFUSED, other: instead}.items():
            if key == refused or (refused.endswith(".") and key.startswith(refused)):
                raise ConfigError(f"{word}: {reason}")


def place_directories(key: str, given: Any) -> Path:
    """Return a requested directory as an absolute path, with ``~`` as the home directory.

    Args:
        key: key of the configuration, for messages.
        given: its value.

    Raises:
        ConfigError: the value is empty, or there is something else than a directory.
    """
    if not isinstance(given, str) or not given.strip():
        raise ConfigError(f"{key}={given!r} must name a directory")
    try:
        path = Path(given).expanduser().resolve()
        blocked = next((one for one in (path, *path.parents) if one.exists() and not one.is_dir()), None)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{key}={given!r} can't be used: {error}") from error
    if blocked is not None:
        raise ConfigError(f"{key}={given}: {blocked} is no directory")
    return path


def results_root(written: str, given: str) -> Path:
    """Return the directory below which runs leave their results.

    Args:
        written: name of a run's or a sweep's directory, with its interpolations.
        given: directory of this sweep.

    Returns:
        For ``data/${sweep.name}`` that is ``data``, and for a name without interpolations its parent. For a name that
        starts with an interpolation it is the parent of ``given``.
    """
    fixed, interpolated, _ = written.partition("${")
    if not interpolated:
        return Path(written).expanduser().parent
    return Path(fixed.rpartition("/")[0] or "/").expanduser() if "/" in fixed else Path(given).parent


def refuse_tilde(words: Iterable[str]) -> None:
    """Refuse a run's directory below ``~``, because Hydra would make a directory with the name ``~``.

    Raises:
        ConfigError: the message names the word.
    """
    for word in words:
        if re.match(r"""\+*hydra\.run\.dir=['"]?~""", word):
            raise ConfigError(f"{word}: '~' is not the home directory here; write it out")


def refuse_used_by_sweep(directory: Path) -> None:
    """Refuse a directory for a new sweep if another sweep has left files in it.

    Raises:
        ConfigError: the message names a file, and how to resume that sweep.
    """
    if (directory.parent / SWEEP_FILE).is_file():
        raise ConfigError(f"hydra.sweep.dir={directory} is in the directory of another sweep: choose another")
    left = [
        path for path in (directory / SWEEP_FILE, directory / REPORT_FILE, directory / RESULT_FILE) if path.exists()
    ]
    left += sorted(path for path in directory.glob(f"*/{RESULT_FILE}") if NUMBER.fullmatch(path.parent.name))
    if left:
        raise ConfigError(
            f"hydra.sweep.dir={directory} holds {left[0].relative_to(directory)} of another sweep: choose a new "
            f"directory, or go on with that sweep by sweep.resume={directory}"
        )


def claim_directory(directory: Path) -> None:
    """Mark a directory as used by this sweep.

    Raises:
        ConfigError: another sweep has started there in the meantime.
    """
    try:
        (directory / SWEEP_FILE).touch(exist_ok=False)
    except FileExistsError:
        refuse_used_by_sweep(directory)


def refuse_used_by_run(directory: Path, resume: str | None = None) -> None:
    """Refuse a directory for a single run if another run has left files in it.

    Args:
        directory: directory of the run.
        resume: directory of the run to resume; a run may resume in its own directory.

    Raises:
        ConfigError: the message names a file.
    """
    if (directory.parent / SWEEP_FILE).is_file():
        raise ConfigError(
            f"hydra.run.dir={directory} is in the directory of a sweep, which has runs of its own: choose another"
        )
    if resume is not None and Path(resume).expanduser().resolve() == directory.resolve():
        return
    for name in (CONFIG_FILE, PROGRESS_FILE, STATE_FILE):
        if (directory / name).exists():
            raise ConfigError(f"{directory / name} is of another run: choose a directory without one")
