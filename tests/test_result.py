"""Results on disk."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlff_exp.result import RESULT_FILE, Criterion, Failure, Progress, ResultError, RunResult, Timing, Verdict, label

CONFIG = {
    "task": {"name": "inference"},
    "model": {"name": "student", "checkpoint": "student"},
    "system": {"name": "benzene"},
    "engine": {"name": "compile", "mode": "reduce-overhead"},
    "precision": {"name": "fp32"},
    "batch_size": 16,
    "sweep": {"gate_decision": "no_verdict"},
}


def full_result() -> RunResult:
    return RunResult(
        config=CONFIG,
        metrics={"latency_median_ms": 1.25},
        series={"loss": [[1, 0.5], [2, 0.25]]},  # type: ignore[list-item]
        timing={"engine": Timing((1.0, 2.0), (3.0,), 0.5, (1, 1))},
        environment={"packages": {"torch": "2.13.0"}},
        artifacts=["latency.png"],
        verdict=Verdict("NO-GO", "strict", (Criterion("drift", None, None, 1.0, False),), ("drift is not measured",)),
        tags={"engine.ran": "compile"},
    )


def test_round_trip(tmp_path: Path) -> None:
    result = full_result()
    result.save(tmp_path)
    assert RunResult.load(tmp_path) == result
    assert list(tmp_path.iterdir()) == [tmp_path / RESULT_FILE]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


NOT_OURS = {"verdict": None, "failure": None, "timing": {}, "config": {}, "status": "DONE"}


@pytest.mark.parametrize(
    "spoil", ["{", '{"metrics": {}}', "[]", json.dumps({"verdict": None}), json.dumps(NOT_OURS), "\xe9"]
)
def test_a_damaged_file_is_named(tmp_path: Path, spoil: str) -> None:
    (tmp_path / RESULT_FILE).write_bytes(spoil.encode("latin-1"))
    with pytest.raises(ResultError, match=r"result.json is not a result of this version"):
        RunResult.load(tmp_path)


def test_labels() -> None:
    assert label(CONFIG) == "inference · benzene · compile/reduce-overhead · fp32 · B16"
    nve = CONFIG | {"task": {"name": "nve", "replicas": 3}, "engine": {"name": "eager"}}
    assert label(nve) == "nve · benzene · eager · fp32 · ×3"
    distill = CONFIG | {"task": {"name": "distill", "n_features": 64, "n_interactions": 2}}
    assert label(distill) == "distill · 64/2"
    teacher = {"name": "ase", "calculator": {"_target_": "tblite.ase.TBLite"}}
    assert label(CONFIG | {"model": teacher}) == "inference · benzene · ase/TBLite · B16"
    mine = CONFIG | {"task": {"name": "accuracy"}, "model": {"name": "student", "checkpoint": "/models/mine.pt"}}
    assert label(mine) == "accuracy · mine.pt · compile/reduce-overhead · fp32"
