"""Names of runs: different runs have different ones, and they say what differs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from mlff_exp.results.naming import (
    MAX_LABEL,
    RunKey,
    add_varied_keys,
    find_varied_keys,
    format_value,
    label,
    make_run_key,
    model_word,
)
from mlff_exp.runs.preparing import prepare_jobs
from tests.helpers.here import resolved_of
from tests.helpers.results import CONFIG
from tests.helpers.sweeps import host_of


def names(*words: str) -> list[str]:
    """The labels of the jobs of a sweep."""
    return [label(job.resolved) for job in prepare_jobs(host_of([]), ["device=cpu", *words], [])]


@pytest.fixture
def twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for directory in ("a", "b"):
        (tmp_path / directory).mkdir()
        for name in ("POSCAR", "mine.pt"):
            (tmp_path / directory / name).write_text(directory)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        (["task=nve", "task.timestep_fs=0.25,0.5,1"], ["timestep_fs=0.25", "timestep_fs=0.5", "timestep_fs=1.0"]),
        (["seed=0,1"], ["B1 · seed=0", "B1 · seed=1"]),
        (["task=nve", "gate=off,strict"], ["×1 · gate=off", "×1 · gate=strict"]),
        (["model=ase", "+model.calculator.kT=1,2"], ["kT=1", "kT=2"]),
        (["task=accuracy", "batch_size=1,2"], ["batch_size=1", "batch_size=2"]),
        (["system=water_box", "system.name=box", "system.n_molecules=8,27"], ["n_molecules=8", "n_molecules=27"]),
        (
            ["system=file", "system.path=a/POSCAR,b/POSCAR", "system.index=0"],
            ["path=a/POSCAR", "path=b/POSCAR"],
        ),
        (["system=file", "system.path=a/POSCAR", "system.index=0,1"], ["index=0", "index=1"]),
        (["model.checkpoint=a/mine.pt,b/mine.pt"], ["checkpoint=a/mine.pt", "checkpoint=b/mine.pt"]),
        (["model=torch", "model.factory=a.b:c", "+model.arguments.width=1,2"], ["width=1", "width=2"]),
        (["batch_size=1,2"], ["fp32 · B1", "fp32 · B2"]),
        (["system=water_box", "system.n_molecules=8,27"], ["water_box_8", "water_box_27"]),
    ],
    ids=lambda words: words[-1],
)
@pytest.mark.usefixtures("twice")
def test_a_name_shows_swept_keys(words: list[str], ends: list[str]) -> None:
    found = names(*words)
    assert len(set(found)) == len(found) == len(ends)
    for name, end in zip(found, ends, strict=True):
        assert end in name


# Keys that each task takes, and some values of each.
CHOICES: dict[str, dict[str, list[Any]]] = {
    "nve": {
        "task.timestep_fs": [0.25, 0.5], "task.replicas": [1, 2], "task.systems": [[], ["water", "ammonia"]],
        "seed": [0, 1], "gate.name": ["off", "strict"], "device": ["cpu", "auto"],
    },
    "inference": {
        "task.min_calls": [10, 20], "batch_size": [1, 2], "system.path": ["a/POSCAR", "b/POSCAR", "POSCAR"],
        "system.index": [0, -1], "model.checkpoint": ["a/x.pt", "b/x.pt", "student", "student_small"],
        "precision.name": ["fp32", "fp64"],
    },
    "accuracy": {"batch_size": [1, 2], "task.dataset": ["a\nb", "a b", "a\\nb", "<b>|[b] · x", "x" * 500, "x" * 501]},
}  # fmt: skip


def drawn(rng: random.Random) -> dict[str, Any]:
    """The configuration of a job."""
    task = rng.choice(list(CHOICES))
    config: dict[str, Any] = {
        "task": {"name": task, "replicas": 1},
        "model": {"name": "student", "checkpoint": "student"},
        "system": {"name": "file", "path": "POSCAR"},
        "engine": {"name": "eager"},
        "precision": {"name": "fp32"},
        "batch_size": 1,
    }
    for key, values in CHOICES[task].items():
        group, _, below = key.rpartition(".")
        (config.setdefault(group, {}) if group else config)[below] = rng.choice(values)
    if rng.random() < 0.3:
        extra: dict[str, Any] = rng.choice([{}, {"kT": 1}, {"kT": "1"}, {"deep": {"kT": 1}}, {"kT": None}, {"kT": ""}])
        config["model"] = {"name": "ase", "calculator": {"_target_": rng.choice(["a.EMT", "b.EMT"]), **extra}}
    return config


@pytest.mark.parametrize("seed", range(20))
def test_jobs_of_a_sweep_that_differ_have_different_names(seed: int) -> None:
    """And jobs that do not differ the same."""
    rng = random.Random(seed)
    jobs = [drawn(rng) for _ in range(rng.randint(2, 30))]
    found = [label(config) for config in add_varied_keys(jobs)]
    for first, one in zip(jobs, found, strict=True):
        for second, other in zip(jobs, found, strict=True):
            assert (one == other) == (first == second), (first, second)
    assert all(name.isprintable() and len(name) <= MAX_LABEL for name in found)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "inference · benzene · compile/reduce-overhead · fp32 · B1"),
        (["task.min_calls=7", "timeout_s=8"], "inference · benzene · compile/reduce-overhead · fp32 · B1"),
        (
            ["task=nve", "task.timestep_fs=0.25", "gate=off", "seed=3", "device=cpu"],
            "nve · benzene · compile/reduce-overhead · fp32 · ×1 · timestep_fs=0.25 · gate=off · device=cpu · seed=3",
        ),
        (["model=ase", "+model.calculator.kT=0.1"], "inference · benzene · ase/teacher_calculator · B1 · kT=0.1"),
        (["task=distill", "task.n_features=64"], "distill · 64/3"),
        (["system=water_box", "system.n_molecules=8"], "inference · water_box_8 · compile/reduce-overhead · fp32 · B1"),
    ],
)
def test_the_name_of_a_single_run_shows_unusual_keys(words: list[str], expected: str) -> None:
    assert label(resolved_of(*words)) == expected


def test_earlier_results_get_the_keys_by_which_they_differ() -> None:
    """It has no record of what was swept."""
    early = [CONFIG | {"seed": seed} for seed in (0, 1)]
    assert [label(config) for config in early] == ["inference · benzene · compile/reduce-overhead · fp32 · B16"] * 2
    assert [label(config).rpartition(" · ")[2] for config in add_varied_keys(early)] == ["seed=0", "seed=1"]
    assert find_varied_keys([CONFIG, CONFIG]) == [[], []]


def test_values_that_differ_are_shown_differently() -> None:
    values = [
        1,
        "1",
        1.5,
        "1.5",
        None,
        "null",
        "",
        True,
        "true",
        "a b",
        " a",
        "a\n",
        "a\\n",
        "a·b",
        '"a"',
        [1, "1"],
        "é",
    ]
    values += ["x" * 99, "x" * 98]
    texts = [format_value(value) for value in values]
    assert len(set(texts)) == len(values)
    assert all(text.isprintable() and len(text) <= 60 for text in texts)


def test_a_run_is_fields() -> None:
    assert make_run_key(resolved_of("device=cpu", "engine=eager", "batch_size=4")) == RunKey(
        task="inference", model="student", system="benzene", engine="eager", mode="",
        precision="fp32", batch_size=4, device="cpu",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["task=distill"], {"model", "system", "engine", "precision", "batch_size"}),
        (["task=accuracy"], {"system"}),
        (["task=nve"], {"batch_size"}),
        (["task=nve", "task.systems=[water]"], {"batch_size", "system"}),
        (["task=inference"], set()),
    ],
    ids=lambda words: words[-1] if isinstance(words, list) else None,
)
def test_only_used_keys_are_recorded(words: list[str], absent: set[str]) -> None:
    groups = {"model", "system", "engine", "precision", "batch_size"}
    assert groups - set(resolved_of(*words)) == absent


def test_a_calculator_is_recorded_as_it_ran() -> None:
    for words in (["model=ase"], ["model=ase", "task=nve"], ["model=ase", "task=accuracy"]):
        record = resolved_of(*words)
        assert (record["engine"], record["precision"]) == ({"name": "native"}, {"name": "native"})
        assert "compile" not in label(record)


@pytest.mark.parametrize(
    ("model", "word"),
    [
        ({"name": "student", "checkpoint": "student"}, "student"),
        ({"name": "student", "checkpoint": "mine/net.pt"}, "net.pt"),
        ({"name": "ase", "calculator": {"_target_": "ase.calculators.emt.EMT"}}, "ase/EMT"),
        ({"name": "torch", "factory": "a.b:c", "arguments": {"width": 3}}, "a.b:c"),
        ({"name": "outside", "width": 3}, "outside"),
        ({"name": "outside", "checkpoint": "mine/large"}, "outside/large"),
        ({"name": "outside", "checkpoint": None, "factory": None, "calculator": {}}, "outside"),
    ],
)
def test_what_a_model_is_called(model: dict[str, Any], word: str) -> None:
    assert model_word(model) == word
    assert make_run_key(CONFIG | {"model": model}).model == word


def test_an_option_of_a_model_that_is_not_as_usual_is_named() -> None:
    words = ("device=auto", "model=torch", "model.factory=a.b:c")
    assert "width" not in label(resolved_of(*words))
    assert label(resolved_of(*words, "+model.arguments.width=3")).endswith("width=3")
