"""Directories of runs and sweeps: what would mix two of them is refused before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mlff_exp.cli.sweeping import sweep
from mlff_exp.config.errors import ConfigError
from mlff_exp.results.directories import run_directories
from mlff_exp.runs.directories import (
    claim_directory,
    place_directories,
    refuse_moved,
    refuse_tilde,
    refuse_used_by_run,
    refuse_used_by_sweep,
    results_root,
)
from mlff_exp.runs.preparing import join_parameters
from tests.helpers.results import full_result
from tests.helpers.sweeps import host_of


def hydra(**changed: Any) -> Any:
    node = {
        "job": {"chdir": False}, "output_subdir": None, "overrides": {"hydra": []},
        "sweep": {"dir": "x", "subdir": "${hydra.job.num}"}, **changed,
    }  # fmt: skip
    return OmegaConf.create(node)


@pytest.mark.parametrize(
    ("changed", "message", "single"),
    [
        ({"job": {"chdir": True}}, "hydra.job.chdir=true: every run would have a store", None),
        ({"output_subdir": ".hydra"}, "hydra.output_subdir=.hydra", None),
        ({"sweep": {"subdir": "run_${hydra.job.num}"}}, "a run's directory is its number", False),
        ({"overrides": {"hydra": ["hydra.job.num=7"]}}, "hydra.job.num=7: the sweep numbers its jobs", None),
        ({"overrides": {"hydra": ["++hydra.job.id=7"]}}, "the sweep numbers its jobs", None),
        ({"overrides": {"hydra": ["hydra.runtime.output_dir=x"]}}, "Hydra finds it out", None),
        ({"overrides": {"hydra": ["hydra.run.dir=x"]}}, "the directory of a sweep is hydra.sweep.dir", False),
        ({"overrides": {"hydra": ["hydra.sweep.dir=x"]}}, "the directory of a single run is hydra.run.dir", True),
    ],
)
def test_settings_that_would_move_the_files_of_a_run_are_refused(
    changed: dict[str, Any], message: str, *, single: bool | None
) -> None:
    for one in (True, False) if single is None else (single,):
        refuse_moved(hydra(), single=one)
        with pytest.raises(ConfigError, match=message):
            refuse_moved(hydra(**changed), single=one)


def test_a_sweep_begins_where_no_other_has_been(tmp_path: Path) -> None:
    refuse_used_by_sweep(tmp_path / "new")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "analysis").mkdir()
    full_result().save(tmp_path / "analysis")
    refuse_used_by_sweep(tmp_path)
    (tmp_path / "3").mkdir()
    full_result().save(tmp_path / "3")
    with pytest.raises(ConfigError, match=f"holds 3/result.json of another sweep.*sweep.resume={tmp_path}"):
        refuse_used_by_sweep(tmp_path)


def test_of_two_sweeps_that_begin_at_once_one_has_the_directory(tmp_path: Path) -> None:
    claim_directory(tmp_path)
    with pytest.raises(ConfigError, match=r"holds multirun.yaml of another sweep"):
        claim_directory(tmp_path)


def test_a_fixed_directory_is_refused_before_the_store_is_opened(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    full_result().save(tmp_path / "0")
    words = ["device=cpu", "engine=eager", f"hydra.sweep.dir={tmp_path}", f"tracking.directory={tmp_path}/mlruns"]
    host = host_of(words)
    before = (tmp_path / "0" / "result.json").read_bytes()
    with pytest.raises(ConfigError, match="of another sweep"):
        sweep(host, [words[0], words[1], words[3], "seed=0,1"])
    assert (tmp_path / "0" / "result.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0"]


def test_a_single_run_begins_where_no_other_has_been(tmp_path: Path) -> None:
    refuse_used_by_run(tmp_path)
    (tmp_path / "progress.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"progress.jsonl is of another run"):
        refuse_used_by_run(tmp_path)
    refuse_used_by_run(tmp_path, str(tmp_path))  # it goes on in its own
    (tmp_path / "multirun.yaml").write_text("")
    with pytest.raises(ConfigError, match="is in the directory of a sweep"):
        refuse_used_by_run(tmp_path / "0")


@pytest.mark.parametrize("given", ["", None, "a/file/below", "x\0"])
def test_an_illegal_directory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("")
    with pytest.raises(ConfigError, match=r"hydra\.sweep\.dir="):
        place_directories("hydra.sweep.dir", given)
    assert place_directories("hydra.sweep.dir", "~/b's dir") == tmp_path / "home" / "b's dir"
    assert place_directories("hydra.sweep.dir", "c") == tmp_path / "c"
    for word in ("hydra.run.dir=~/x", "hydra.run.dir='~/x'"):
        with pytest.raises(ConfigError, match="'~' is not the home directory here"):
            refuse_tilde([word])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("outputs/${now:%Y-%m-%d}/${now:%H-%M-%S-%f}_${sweep.name}", "outputs"),
        ("/data/mine/run_${now:%H/%M}", "/data/mine"),
        ("/${sweep.name}", "/"),
        ("${oc.env:SCRATCH}/runs/${now:%H}", "/scratch/runs"),
        ("/data/one", "/data"),
        ("one", "."),
    ],
)
def test_results_are_below_the_fixed_part_of_the_directory_name(written: str, expected: str) -> None:
    assert results_root(written, "/scratch/runs/12") == Path(expected)


@pytest.mark.parametrize("key", ["sweep.name", "sweep.budget_s", "sweep.resume"])
def test_keys_that_all_jobs_share_are_not_swept(key: str) -> None:
    with pytest.raises(ConfigError, match=f"a sweep has one {key}, which its jobs share"):
        join_parameters(host_of([]), ["engine=eager", f"{key}=1,2"])


def test_runs_of_a_sweep_are_named_by_numbers(tmp_path: Path) -> None:
    for name in ("10", "2", "02", "²", "٣", "2.attempt0", "mine", "2/3"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        full_result().save(tmp_path / name)
    assert run_directories(tmp_path) == {2: tmp_path / "2", 10: tmp_path / "10"}
    assert list(run_directories(tmp_path)) == [2, 10]
