"""Results on disk."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlff_exp.common.files import MAX_BYTES
from mlff_exp.results.failure import Failure
from mlff_exp.results.naming import label
from mlff_exp.results.progress import Progress, ProgressPoint
from mlff_exp.results.result import RESULT_FILE, ResultError, RunResult
from tests.helpers.results import CONFIG, full_result


def test_round_trip(tmp_path: Path) -> None:
    result = full_result()
    result.save(tmp_path)
    assert RunResult.load(tmp_path) == result
    assert list(tmp_path.iterdir()) == [tmp_path / RESULT_FILE]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = full_result()
    path = result.save(tmp_path)

    def half(path: Path, text: str, encoding: str) -> None:
        path.write_bytes(text.encode(encoding)[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        replace(result, status="FAILED", failure=Failure("crash", "")).save(tmp_path)
    assert RunResult.load(tmp_path) == result
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_metric_that_is_not_finite_is_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match="metric 'break_even_calls' is"):
        RunResult(config=CONFIG, metrics={"break_even_calls": value})
    with pytest.raises(ValueError, match=r"metric 'loss' is .* at step 2"):
        RunResult(config=CONFIG, series={"loss": [(1, 0.5), (2, value)]})


def test_progress_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metric 'loss' is nan at step 7"):
        Progress(tmp_path).write(7, {"loss": float("nan")})
    assert Progress(tmp_path).read(0) == ([], 0)


def test_only_a_finished_run_has_no_failure() -> None:
    with pytest.raises(ValueError, match="a FINISHED run must not have a failure"):
        RunResult(config=CONFIG, failure=Failure("timeout", "too slow"))
    with pytest.raises(ValueError, match="a KILLED run must have a failure"):
        RunResult(config=CONFIG, status="KILLED")
    with pytest.raises(ValueError, match="'DONE' is not one of FINISHED, FAILED, KILLED, SKIPPED"):
        RunResult(config=CONFIG, status="DONE")  # type: ignore[arg-type]


NOT_OURS: dict[str, Any] = {"verdict": None, "failure": None, "timing": {}, "config": {}, "status": "DONE"}


@pytest.mark.parametrize(
    "spoil", ["{", '{"metrics": {}}', "[]", json.dumps({"verdict": None}), json.dumps(NOT_OURS), "\xe9"]
)
def test_a_damaged_file_is_named(tmp_path: Path, spoil: str) -> None:
    (tmp_path / RESULT_FILE).write_bytes(spoil.encode("latin-1"))
    with pytest.raises(ResultError, match=r"result.json is not a result of this version"):
        RunResult.load(tmp_path)


def spoilt(change: Callable[[dict[str, Any]], object]) -> str:
    """A result that somebody else has written to."""
    values = json.loads(json.dumps(dataclasses.asdict(full_result())))
    change(values)
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (spoilt(lambda values: values.update(status="DONE")), "status='DONE' is not one of FINISHED, FAILED"),
        (spoilt(lambda values: values["metrics"].update(latency_median_ms=math.nan)), "it holds NaN"),
        (spoilt(lambda values: values["metrics"].update(latency_median_ms=-math.inf)), "it holds -Infinity"),
        (spoilt(lambda values: values["metrics"].update(a="1")), "metrics.a='1' is not float"),
        (spoilt(lambda values: values["metrics"].update(a=True)), "metrics.a=True is not float"),
        (spoilt(lambda values: values["metrics"].update(a=7e777)), "it holds Infinity"),
        (spoilt(lambda values: values.update(metrics=[])).replace("1.25", "1e999"), "metrics=.* is not a mapping"),
        (spoilt(lambda values: None).replace("1.25", "1e999"), "metrics.latency_median_ms=inf is not finite"),
        (spoilt(lambda values: values.update(series={"loss": [[1, 2, 3]]})), "is not 2 values"),
        (spoilt(lambda values: values["timing"]["engine"].update(values_ms=["x"])), "timing.engine.values_ms='x'"),
        (spoilt(lambda values: values.update(version=2)), "unknown keys: version"),
        (spoilt(lambda values: values.pop("config")), "missing keys: config"),
        (spoilt(lambda values: values.update(verdict={"decision": "GO"})), "verdict: missing keys: gate"),
        (spoilt(lambda values: values["verdict"].update(decision="MAYBE")), "verdict.decision='MAYBE'"),
        (spoilt(lambda values: values.update(tags={"a": 1})), "tags.a=1 is not str"),
        (spoilt(lambda values: values["metrics"].update(a=10**400)), "metrics.a=1000.* is not finite"),
        (spoilt(lambda values: values["config"]["task"].update(name=3)), "config.task.name=3 is not str"),
        (spoilt(lambda values: values["config"].update(task="nve")), "config.task='nve' is not a mapping"),
        (spoilt(lambda values: values["config"].update(batch_size="xxx")), "config.batch_size='xxx' is not int"),
        (spoilt(lambda values: values["config"].update(batch_size=10**400)), "config.batch_size=1.* more than 64 bits"),
        (spoilt(lambda values: values["config"].update(batch_size=0)), "config.batch_size=0 is less than 1"),
        (spoilt(lambda values: values["config"].update(batch_size=None)), "config.batch_size=None is not int"),
        (spoilt(lambda values: values["config"].pop("batch_size")), "config has no batch_size"),
        (spoilt(lambda values: values["config"].pop("precision")), "config has no precision.name"),
        (
            spoilt(lambda values: values["config"]["model"].update(checkpoint=["x"])),
            "config.model.checkpoint=.*not str",
        ),
        (spoilt(lambda values: values["config"]["model"].pop("checkpoint")), "config has no model.checkpoint"),
        (
            spoilt(lambda values: values["config"]["sweep"].update(varied={"a": 1})),
            "config.sweep.varied.a=1 is not str",
        ),
        (spoilt(lambda values: values["config"]["task"].update(systems=[{}])), "config.task.systems holds {}"),
        (spoilt(lambda values: values["config"]["task"].update(duration_ps=None)), "duration_ps=None is not a number"),
        (spoilt(lambda values: values["config"]["task"].update(duration_ps=-1)), "duration_ps=-1 is not positive"),
        (spoilt(lambda values: values["metrics"].update(latency_median_ms=-5)), "latency_median_ms=-5 is not positive"),
        (
            spoilt(lambda values: values["metrics"].update(speedup_vs_baseline_ci_low=0)),
            "metrics.speedup_vs_baseline_ci_low=0 is not positive",
        ),
        (
            spoilt(lambda values: values["metrics"].update(force_mae_mev_per_ang=-1)),
            "metrics.force_mae_mev_per_ang=-1 is negative",
        ),
        (
            spoilt(lambda values: values["timing"]["engine"].update(values_ms=[1, -1])),
            "values_ms holds -1, which is negative",
        ),
        (
            spoilt(lambda values: values["timing"]["engine"].update(blocks=[])),
            "blocks do not add up to its 2 values_ms",
        ),
        (spoilt(lambda values: values["timing"]["engine"].update(blocks=[3, -1])), "blocks do not add up"),
        (spoilt(lambda values: values["timing"]["engine"].update(turns=[1])), "turns has 1 numbers; expected are 2 or"),
        (spoilt(lambda values: values["environment"].update(packages=None)), "environment.packages=None is not a map"),
        (spoilt(lambda values: values["environment"].update(git_diff=["x"])), "environment.git_diff=.* is not str"),
        (
            spoilt(
                lambda values: values.update(schema=2, key={**dataclasses.asdict(full_result().key), "engine": "x"})
            ),
            "key.engine='x' contradicts config, by which it is 'compile'",
        ),
        ("[" * 100_000, "nested too deeply"),
        ("null", "is not a mapping"),
    ],
)
def test_an_invalid_result_is_refused_with_its_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / RESULT_FILE).write_text(text)
    with pytest.raises(ResultError, match=f"result.json is not a result of this version: .*{message}"):
        RunResult.load(tmp_path)


def test_the_interval_of_a_mean_may_reach_below_zero(tmp_path: Path) -> None:
    metrics = {f"rotation_percent_of_kinetic{end}/water": value for end, value in (("", 0.1), ("_ci_low", -0.2))}
    replace(full_result(), metrics=metrics).save(tmp_path)
    assert RunResult.load(tmp_path).metrics == metrics
    replace(full_result(), metrics={"rotation_percent_of_kinetic/water": -0.1}).save(tmp_path)
    with pytest.raises(ResultError, match="is negative"):
        RunResult.load(tmp_path)


def test_a_file_that_was_damaged_on_the_disk_is_refused(tmp_path: Path) -> None:
    """Any changed byte: the file is refused, or it says the same."""
    path = full_result().save(tmp_path)
    whole, refused = path.read_bytes(), 0
    rng = np.random.default_rng(0)
    for offset in rng.integers(len(whole), size=200):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            assert RunResult.load(tmp_path) == full_result()
        except ResultError:
            refused += 1
    assert refused > 150
    values = json.loads(whole)
    values["metrics"]["latency_median_ms"] = 0.5 * values["metrics"]["latency_median_ms"]
    path.write_text(json.dumps(values))
    with pytest.raises(ResultError, match="its sha256 is that of other values: the file was damaged or changed"):
        RunResult.load(tmp_path)
    del values["sha256"]
    path.write_text(json.dumps(values))
    assert RunResult.load(tmp_path).metrics == values["metrics"], "earlier versions wrote no digest"


def test_a_time_that_the_clock_does_not_resolve_is_read(tmp_path: Path) -> None:
    (tmp_path / RESULT_FILE).write_text(
        spoilt(lambda values: values["timing"]["engine"].update(values_ms=[0, 0.5], blocks=[2], turns=[]))
    )
    assert RunResult.load(tmp_path).timing["engine"].values_ms == (0, 0.5)


def test_a_result_that_is_no_file_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"result.json is not .*: it can.t be read: No such file"):
        RunResult.load(tmp_path)
    (tmp_path / RESULT_FILE).mkdir()
    with pytest.raises(ResultError, match="it is not a regular file"):
        RunResult.load(tmp_path)
    (tmp_path / RESULT_FILE).rmdir()
    with (tmp_path / RESULT_FILE).open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # takes no room on the disk
    with pytest.raises(ResultError, match=r"it has 268,435,457 bytes; at most 268,435,456 are read"):
        RunResult.load(tmp_path)


@pytest.mark.parametrize("line", ["{", '{"step": 1}', '{"step": 1, "metrics": {"a": NaN}, "time_ms": 1}', "7", "\xff"])
def test_a_line_that_is_no_progress_is_named(tmp_path: Path, line: str) -> None:
    good = '{"step": 1, "metrics": {"loss": 0.5}, "time_ms": 3}\n'
    (tmp_path / "progress.jsonl").write_bytes(f"{good}{line}\n".encode("latin-1"))
    with pytest.raises(ResultError, match=r"progress.jsonl has a line that is no record of progress"):
        Progress(tmp_path).read(0)
    (tmp_path / "progress.jsonl").write_text(good + good[:7])
    assert Progress(tmp_path).read(0) == ([ProgressPoint(1, {"loss": 0.5}, 3)], len(good)), (
        "the last line is being written"
    )


def test_an_earlier_result_is_read_without_unused_keys(tmp_path: Path) -> None:
    """It was recorded with words that nothing took notice of."""
    calculator = {"name": "ase", "calculator": {"_target_": "ase.calculators.emt.EMT"}}
    for config, absent in (
        (CONFIG | {"model": calculator}, set()),
        (CONFIG | {"task": {"name": "accuracy"}, "model": calculator}, {"system"}),
        (CONFIG | {"task": {"name": "nve", "replicas": 1}, "model": calculator}, {"batch_size"}),
    ):
        file = RunResult(config).save(tmp_path)
        values = json.loads(file.read_text())
        file.write_text(
            json.dumps({key: value for key, value in values.items() if key not in ("schema", "key", "sha256")})
        )
        loaded = RunResult.load(tmp_path).config
        assert (loaded["engine"], loaded["precision"]) == ({"name": "native"}, {"name": "native"})
        assert set(config) - set(loaded) == absent


@pytest.mark.parametrize("lost", ["model", "engine", "precision", "batch_size", "system"])
def test_a_result_without_a_part_of_its_key_is_refused(tmp_path: Path, lost: str) -> None:
    file = full_result().save(tmp_path)
    values = json.loads(file.read_text())
    del values["config"][lost], values["sha256"]
    file.write_text(json.dumps(values))
    with pytest.raises(ResultError, match=f"config has no .*{lost}"):
        RunResult.load(tmp_path)


def test_only_a_run_that_depends_on_a_gate_keeps_its_decision(tmp_path: Path) -> None:
    for task, kept in (({"name": "inference"}, True), ({"name": "nve", "replicas": 1}, False)):
        RunResult(CONFIG | {"task": task}).save(tmp_path)
        assert ("gate_decision" in RunResult.load(tmp_path).config["sweep"]) is kept


def test_a_task_of_another_package_has_a_label() -> None:
    assert label(CONFIG | {"task": {"name": "outside"}}).startswith("outside · benzene · compile")
    assert label({"task": {"name": "outside", "replicas": 2, "systems": ["water"]}}) == "outside · water · ×2"


def test_labels() -> None:
    assert label(CONFIG) == "inference · benzene · compile/reduce-overhead · fp32 · B16"
    nve = CONFIG | {"task": {"name": "nve", "replicas": 3}, "engine": {"name": "eager"}}
    assert label(nve) == "nve · benzene · eager · fp32 · ×3"
    distill = {"task": {"name": "distill", "n_features": 64, "n_interactions": 2}}
    assert label(distill) == "distill · 64/2"
    teacher = {"name": "ase", "calculator": {"_target_": "tblite.ase.TBLite"}}
    assert label(CONFIG | {"model": teacher, "engine": {"name": "native"}}) == "inference · benzene · ase/TBLite · B16"
    mine = CONFIG | {"task": {"name": "accuracy"}, "model": {"name": "student", "checkpoint": "/models/mine.pt"}}
    del mine["system"]
    assert label(mine) == "accuracy · mine.pt · compile/reduce-overhead · fp32"
