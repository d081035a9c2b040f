"""Results of earlier versions are read, and a result has the key of its run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlff_exp.report.validity import validity
from mlff_exp.results.earlier import SCHEMA
from mlff_exp.results.failure import Failure, FailureKind
from mlff_exp.results.naming import RunKey
from mlff_exp.results.result import RESULT_FILE, ResultError, RunResult
from mlff_exp.results.verdict import Fault, FaultKind
from tests.helpers.results import full_result
from tests.helpers.sweeps import changed, timed

OLD = Path(__file__).resolve().parent.parent / "data" / "results"


def written(directory: Path, **values: Any) -> Path:
    """A result on disk with some of its values changed."""
    path = full_result().save(directory)
    whole = {key: value for key, value in json.loads(path.read_text()).items() if key != "sha256"}
    path.write_text(json.dumps({**whole, **values}))
    return directory


def test_a_result_of_the_first_schema_has_a_verdict_on_each_system() -> None:
    result = RunResult.load(OLD / "schema_1")
    assert result.verdict is not None
    assert (result.verdict.decision, list(result.verdict.systems)) == ("NO-GO", ["benzene", "water"])
    benzene, water = result.verdict.on("benzene"), result.verdict.on("water")
    assert (benzene.decision, benzene.reasons) == ("GO", ())
    assert water.decision == "NO-GO"
    assert water.reasons == ("water: heated", "temperature_mean_k is 400, allowed is 280 … 320")
    assert [criterion.metric for criterion in water.criteria] == ["temperature_mean_k", "max_bond_change_ang"]
    fast = timed("cuda_graph", "fp32", 1, 40.0)
    assert validity(fast, [result]) == "yes"
    assert validity(changed(fast, system={"name": "water"}), [result]) == "no: unstable"


def test_an_old_result_is_written_in_the_new_form(tmp_path: Path) -> None:
    result = RunResult.load(OLD / "schema_1")
    values = json.loads(result.save(tmp_path).read_text())
    assert values["schema"] == SCHEMA == 2
    assert values["key"] == {
        "task": "nve", "model": "student", "system": "benzene, water", "engine": "cuda_graph", "mode": "",
        "precision": "fp32", "batch_size": None, "device": "",
    }  # fmt: skip
    assert RunResult.load(tmp_path) == result


def test_a_result_has_the_key_of_its_run(tmp_path: Path) -> None:
    result = full_result()
    key = json.loads(result.save(tmp_path).read_text())["key"]
    assert RunKey(**key) == result.key
    assert result.key == RunKey("inference", "student", "benzene", "compile", "reduce-overhead", "fp32", 16, "")


@pytest.mark.parametrize("schema", [0, SCHEMA + 1, "2", None, True, 1.5])
def test_a_schema_of_another_version_is_refused_by_its_number(tmp_path: Path, schema: Any) -> None:
    with pytest.raises(ResultError, match="is none of 1 … 2"):
        RunResult.load(written(tmp_path, schema=schema))


@pytest.mark.parametrize("key", [{}, 7, {"task": "nve"}])
def test_a_damaged_key_is_refused(tmp_path: Path, key: Any) -> None:
    with pytest.raises(ResultError, match=f"{RESULT_FILE} is not a result of this version: "):
        RunResult.load(written(tmp_path, key=key))


@pytest.mark.parametrize(
    "verdict",
    [
        {"decision": "GO", "gate": "strict", "criteria": [], "reasons": [], "systems": {"a": {}}},
        {"decision": "GO", "gate": "strict", "criteria": [], "reasons": [], "systems": []},
    ],
)
def test_damaged_verdicts_on_systems_are_refused(tmp_path: Path, verdict: Any) -> None:
    with pytest.raises(ResultError):
        RunResult.load(written(tmp_path, verdict=verdict))


def test_verdicts_in_verdicts_without_end_are_refused(tmp_path: Path) -> None:
    head = '{"decision": "GO", "gate": "g", "criteria": [], "reasons": [], "systems": {"a": '
    path = full_result().save(tmp_path)
    whole = {key: value for key, value in json.loads(path.read_text()).items() if key != "sha256"}
    text = json.dumps({**whole, "verdict": "HERE"})
    path.write_text(text.replace('"HERE"', head * 400 + "null" + "}}" * 400))
    with pytest.raises(ResultError):
        RunResult.load(tmp_path)


def test_kinds_of_failure_are_plain_text_on_disk(tmp_path: Path) -> None:
    failed = replace(full_result(), status="FAILED", failure=Failure(FailureKind.OUT_OF_MEMORY, "no memory"))
    values = json.loads(failed.save(tmp_path).read_text())
    assert values["failure"] == {"kind": "out_of_memory", "message": "no memory"}
    assert RunResult.load(tmp_path).failure == Failure(FailureKind.OUT_OF_MEMORY, "no memory")


def test_old_names_of_words_are_read_as_the_new_ones(tmp_path: Path) -> None:
    path = full_result().save(tmp_path)
    values = json.loads(path.read_text())
    values["config"] = {**values["config"], "gate": {"name": "seed"}}
    one = {"decision": "NO-GO", "gate": "seed", "criteria": [], "reasons": [], "faults": ["it exploded"]}
    values["verdict"] = {**one, "systems": {"benzene": one}}
    del values["sha256"]  # no earlier version wrote it
    path.write_text(json.dumps(values))
    result = RunResult.load(tmp_path)
    assert result.config["gate"] == {"name": "plan"}
    assert result.verdict is not None
    assert (result.verdict.gate, result.verdict.on("benzene").gate) == ("plan", "plan")
    exploded = Fault(FaultKind.UNKNOWN, "it exploded")
    assert result.verdict.faults == result.verdict.on("benzene").faults == (exploded,)
