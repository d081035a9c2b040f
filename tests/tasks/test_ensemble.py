"""Recorded starts: judged again without integrating, by any gate and by fewer starts."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlff_exp.cli.commands import COMMANDS, main
from mlff_exp.common import load_object
from mlff_exp.config.errors import ConfigError
from mlff_exp.config.gate import Gate, Limit
from mlff_exp.results.gate import judge_gate
from mlff_exp.results.result import ResultError, RunResult
from mlff_exp.results.verdict import Criterion, Fault, FaultKind, Verdict
from mlff_exp.tasks.ensemble import PER_SYSTEM, Ensemble, ensemble_columns, load_ensembles, replaced_metrics
from mlff_exp.tasks.judging import judge_recorded
from tests.helpers.here import resolved_of
from tests.helpers.results import full_result

TIMES = np.linspace(0, 20, 101)
N_STARTS = 6
ONCE = {
    "finite_difference_error_ev_per_ang": 1e-7,
    "fluctuation_ratio_dt": 4.0,
    "time_reversal_error_ang": 1e-12,
    "latency_median_ms": 1.0,
}


def ensemble(name: str, heating: float, rng: np.random.Generator) -> Ensemble:
    """Starts of twelve atoms that heat by so many eV/ps."""
    potential = -430 + heating * TIMES[:, None] + rng.normal(0, 1e-4, (len(TIMES), N_STARTS))
    ones = np.ones_like(potential)
    return Ensemble(
        name, 12, -430.4, True, TIMES, potential, 0.4 * ones, 300 * ones, ones, 0.1 * ones, 0 * ones, np.nan * ones
    )


def recorded(directory: Path, *ensembles: Ensemble, faults: tuple[Fault, ...] = ()) -> Path:
    """A directory as a finished run of these starts leaves it."""
    config = resolved_of("task=nve", "system=benzene", "device=cpu", f"task.replicas={N_STARTS}")
    verdict = Verdict("NO-GO" if faults else "GO", "strict", (), (), faults=faults)
    replace(full_result(), config=config, metrics=ONCE, verdict=verdict, artifacts=()).save(directory)
    columns: dict[str, Any] = dict(ensemble_columns(list(ensembles)))
    np.savez(directory / "trajectory_data.npz", **columns)
    return directory


EITHER = Gate("mine", {"max_bond_change_ang": Limit(max=0.5), "lindemann_ratio": Limit(max=0.15)})


@pytest.mark.parametrize(
    ("measured", "gate", "expected"),
    [
        ({"max_bond_change_ang": 0.1}, EITHER, "GO"),
        ({"max_bond_change_ang": 0.6}, EITHER, "NO-GO"),
        ({"lindemann_ratio": 0.1}, EITHER, "GO"),
        ({"lindemann_ratio": 0.2}, EITHER, "NO-GO"),
        ({}, EITHER, "NO-GO"),  # with neither there is nothing to judge
        ({"lindemann_ratio": 0.1}, Gate("mine", {"max_bond_change_ang": Limit(max=0.5)}), "NO-GO"),
        ({"max_bond_change_ang": 0.1}, Gate("mine", {"lindemann_ratio": Limit(max=0.15)}), "NO-GO"),
        ({"max_bond_change_ang": 0.1, "lindemann_ratio": 0.2}, EITHER, "NO-GO"),
    ],
)
def test_bonds_or_lattice_are_judged_and_never_neither(measured: dict[str, float], gate: Gate, expected: str) -> None:
    verdict = judge_gate(measured, gate, inapplicable=replaced_metrics(measured, gate))
    assert verdict.decision == expected


GATE = Gate("mine", {"energy_drift_mean_mev_per_atom_per_ps": Limit(-0.01, 0.01), "fluctuation_ratio_dt": Limit(3, 5)})


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written = [ensemble("benzene", 0.0, rng), ensemble("water", 1e-3, rng)]
    recorded(tmp_path, *written)
    for before, after in zip(written, load_ensembles(tmp_path / "trajectory_data.npz"), strict=True):
        assert (after.name, after.n_atoms, after.minimum_energy, after.has_bonds) == (before.name, 12, -430.4, True)
        np.testing.assert_array_equal(after.potential, before.potential)
        assert after.metrics(300.0) == before.metrics(300.0)


def test_a_run_is_judged_again_by_its_own_gate_by_another_and_by_fewer_starts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    recorded(tmp_path, ensemble("benzene", 0.0, rng), ensemble("water", 1e-3, rng))
    by_mine = judge_recorded(tmp_path, GATE)
    assert {name: verdict.decision for name, verdict in by_mine.items()} == {"benzene": "GO", "water": "NO-GO"}
    assert by_mine["water"].criteria[0].value == pytest.approx(1 / 12, rel=1e-2)
    assert by_mine["water"].n_starts == N_STARTS
    walk = Gate("walk", {"energy_walk_percent_of_thermal": Limit(max=1)})
    one = judge_recorded(tmp_path, walk, 1)["benzene"]
    assert (one.decision, one.n_starts) == ("UNDECIDED", 1)
    own = judge_recorded(tmp_path)["benzene"]
    assert own.gate == RunResult.load(tmp_path).config["gate"]["name"]


def test_what_was_measured_once_keeps_its_interval_and_what_has_no_meaning_is_not_judged(tmp_path: Path) -> None:
    recorded(tmp_path, ensemble("benzene", 0.0, np.random.default_rng(0)))
    result = RunResult.load(tmp_path)
    rotation, curl = "rotation_percent_of_kinetic", "circulation_error"
    interval = {rotation: 0.9, f"{rotation}_ci_low": 0.7, f"{rotation}_ci_high": 1.1}
    skipped = Criterion(curl, None, None, 1e-5, None, inapplicable="for a reason")
    verdict = Verdict("GO", "strict", (skipped,), ())
    replace(result, metrics={**result.metrics, **interval}, verdict=verdict).save(tmp_path)
    gate = Gate("mine", {rotation: Limit(max=1), curl: Limit(max=1e-5)})
    judged = judge_recorded(tmp_path, gate)["benzene"]
    assert judged.decision == "UNDECIDED"
    assert [criterion.inapplicable for criterion in judged.criteria] == ["", "for a reason"]


def test_what_went_wrong_stays_wrong(tmp_path: Path) -> None:
    fault = Fault(FaultKind.BLEW_UP, "replica 2 broke apart")
    recorded(tmp_path, ensemble("benzene", 0.0, np.random.default_rng(0)), faults=(fault,))
    verdict = judge_recorded(tmp_path, GATE)["benzene"]
    assert verdict.decision == "NO-GO"
    assert verdict.faults == (fault,)
    assert verdict.reasons == ("replica 2 broke apart",)


def test_what_can_not_be_judged_is_refused_with_its_reason(tmp_path: Path) -> None:
    recorded(tmp_path, ensemble("benzene", 0.0, np.random.default_rng(0)))
    with pytest.raises(ConfigError, match="--starts 9: the run has 1 to 6 starts"):
        judge_recorded(tmp_path, GATE, 9)
    with pytest.raises(ConfigError, match="gate=off has no criteria: nothing can be judged by it"):
        judge_recorded(tmp_path, Gate())
    with pytest.raises(ConfigError, match=r"criteria.energy_walk_percent: no metric .*did you mean 'energy_walk_perc"):
        judge_recorded(tmp_path, Gate("mine", {"energy_walk_percent": Limit(max=1)}))
    path = tmp_path / "trajectory_data.npz"
    with np.load(path) as file:
        columns = {name: file[name] for name in file.files}
    np.savez(path, **{name: column for name, column in columns.items() if name != "minimum_energy_ev"})
    with pytest.raises(ResultError, match="holds no minimum_energy_ev: an earlier version wrote it"):
        judge_recorded(tmp_path, GATE)
    np.savez(path, **columns | {"temperature_k": columns["temperature_k"][:, :2]})
    with pytest.raises(ResultError, match=r"is damaged: .* does not fit the other arrays"):
        judge_recorded(tmp_path, GATE)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ResultError, match="is damaged"):
        judge_recorded(tmp_path, GATE)
    path.unlink()
    with pytest.raises(ResultError, match="does not exist"):
        judge_recorded(tmp_path, GATE)
    replace(full_result(), verdict=None).save(tmp_path)
    with pytest.raises(ResultError, match="only a finished run of task=nve"):
        judge_recorded(tmp_path, GATE)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["gate=plan", "gate.criteria.temperature_mean_k.max=290"], 3, "Decision (gate=plan, 6 starts): NO-GO"),
        (["gate=plan"], 0, "Decision (gate=plan, 6 starts): GO"),
        (["gate=plans"], 2, "did you mean 'plan'"),
        (["seed=1"], 2, "'seed=1' is not a word of the gate"),
    ],
)
def test_the_command_ends_with_the_decision(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    said: str,
) -> None:
    recorded(tmp_path, ensemble("benzene", 0.0, np.random.default_rng(0)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mlff-exp", "judge", ".", *words])
    if code == 0:
        main()
    else:
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == code
    out, err = capsys.readouterr()
    assert said in (err if code == 2 else out)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_says_what_it_does(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(load_object(COMMANDS[command]))
    monkeypatch.setattr(sys, "argv", ["mlff-exp", command, "--help"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert f"{command} [-h]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("temperature_k", np.full((len(TIMES), N_STARTS), "x")),
        ("kinetic_energy_ev", np.zeros((len(TIMES), N_STARTS), complex)),
        ("times_ps", np.full(len(TIMES), np.nan)),
        ("times_ps", TIMES[::-1].copy()),
        ("times_ps", np.float64(1.0)),
        ("n_atoms", np.array([0])),
        ("minimum_energy_ev", np.array(["x"])),
        ("has_bonds", np.array([None])),
        ("systems", np.array("benzene")),
        ("systems", np.array([], str)),
    ],
)
def test_a_trajectory_of_wrong_values_is_damaged(tmp_path: Path, column: str, values: Any) -> None:
    path = recorded(tmp_path, ensemble("benzene", 0.0, np.random.default_rng(0))) / "trajectory_data.npz"
    with np.load(path) as file:
        columns = {name: file[name] for name in file.files}
    np.savez(path, **columns | {"positions_ang": np.zeros(3)})  # which is not read
    assert judge_recorded(tmp_path, GATE)["benzene"].decision == "GO"
    np.savez(path, **columns | {column: values})
    with pytest.raises(ResultError, match="is damaged"):
        judge_recorded(tmp_path, GATE)


def test_a_trajectory_without_systems_gives_no_verdict(tmp_path: Path) -> None:
    path = recorded(tmp_path, ensemble("benzene", 0.0, np.random.default_rng(0))) / "trajectory_data.npz"
    with np.load(path) as file:
        columns = {name: file[name] for name in file.files}
    np.savez(path, **columns | {name: columns[name][:0] for name in ("systems", *PER_SYSTEM.values())})
    with pytest.raises(ResultError, match="6 starts are not of 0 systems"):
        judge_recorded(tmp_path, GATE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gate", None),
        ("gate", {"name": "mine", "criteria": "x"}),
        ("gate", {"name": "mine", "criteria": {"temperature_error_k": None}}),
        ("precision", {"name": 3}),
        ("task", None),
    ],
)
def test_a_record_without_its_settings_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    recorded(tmp_path, ensemble("benzene", 0.0, np.random.default_rng(0)))
    path = tmp_path / "result.json"
    record = json.loads(path.read_text())
    record.pop("key")
    record["config"] = {name: it for name, it in record["config"].items() if name != key or value is not None}
    if value is not None:
        record["config"][key] = value
    path.write_text(json.dumps(record))
    with pytest.raises(ResultError, match="is not a result of this version"):
        judge_recorded(tmp_path)
