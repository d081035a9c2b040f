"""A sweep goes on with the runs that it began with."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlff_exp.config.errors import ConfigError
from mlff_exp.runs.directories import claim_directory, refuse_used_by_run, refuse_used_by_sweep
from mlff_exp.runs.resuming import find_done_jobs, refuse_other_number
from mlff_exp.tracking.sweeps import SWEEP_FILE
from tests.helpers.results import full_result


@pytest.mark.parametrize("text", ["n_jobs: 3\nseed: 1\n", "seed: 1\n"])
def test_fewer_jobs_than_a_sweep_began_with_are_refused(tmp_path: Path, text: str) -> None:
    """By what it recorded, or else by the directories of its runs."""
    (tmp_path / SWEEP_FILE).write_text(text)
    (tmp_path / "2").mkdir()
    full_result().save(tmp_path / "2")
    refuse_other_number(3, tmp_path)
    with pytest.raises(ConfigError, match="the sweep has 3 runs, and these words come to 1"):
        refuse_other_number(1, tmp_path)


def test_more_jobs_than_a_sweep_began_with_are_refused(tmp_path: Path) -> None:
    (tmp_path / SWEEP_FILE).write_text("n_jobs: 3\n")
    with pytest.raises(ConfigError, match="the sweep has 3 runs, and these words come to 4"):
        refuse_other_number(4, tmp_path)
    (tmp_path / SWEEP_FILE).write_text("[")
    with pytest.raises(ConfigError, match=f"{SWEEP_FILE} can't be read"):
        refuse_other_number(4, tmp_path)


def test_a_sweep_that_was_killed_before_it_was_recorded_goes_on(tmp_path: Path) -> None:
    claim_directory(tmp_path)
    refuse_other_number(4, tmp_path)
    assert find_done_jobs([], tmp_path) == set()


@pytest.mark.parametrize("name", ["0", "00", "mine"])
def test_no_run_is_put_into_the_directory_of_a_sweep(tmp_path: Path, name: str) -> None:
    (tmp_path / SWEEP_FILE).touch()
    for refuse in (refuse_used_by_run, refuse_used_by_sweep):
        with pytest.raises(ConfigError, match="is in the directory of a"):
            refuse(tmp_path / name)
