"""The comparison with other programs, at tiny sizes; `benchmarks/peers.py` is its command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import peers
from benchmarks.comparison import AbsentError, DifferentWorkError, compare, make_ready, make_start, require_same_work
from benchmarks.contenders import CONTENDERS, Contender, Running, Work, ours
from mlff_exp.measure.machine import DisturbanceMonitor
from mlff_exp.models.checkpoint import load_checkpoint, save_checkpoint
from tests.conftest import make_random_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_checkpoint(make_random_model(16, 1), path, teacher="none", training_data_sha256="none")
    return path


@pytest.fixture
def work(weights: Path) -> Work:
    return Work(make_start(1, 0), load_checkpoint(weights), CPU, "fp32", "eager", 0.5, 2)


@pytest.mark.slow
# Dynamo's way with an autograd.Function, which our own engines don't take.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_complete_comparison(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Forward and backward apart, as Inductor gets them, without a minute of Inductor.
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, mode, dynamic: compiled(model, backend="aot_eager"))
    monkeypatch.setitem(CONTENDERS, "schnetpack", replace(CONTENDERS["schnetpack"], package="no-such-package"))
    measured = ["ours", "ase_eager", "compile_default"]
    try:
        import tblite  # noqa: F401
    except ImportError:
        absent = {"teacher": "not installed: tblite"}
    else:
        measured, absent = [*measured, "teacher"], {}
    absent |= {"schnetpack": "not installed: no-such-package", "compile_reduce_overhead": "needs a CUDA GPU"}
    words = "--device cpu --engine eager --steps-per-call 2 --min-calls 20 --min-time-s 0.01 --only"
    only = "ase_eager schnetpack compile_default compile_reduce_overhead teacher"
    peers.main([*f"{words} {only} --output".split(), str(tmp_path), "--checkpoint", str(weights)])

    raw = json.loads((tmp_path / "peers.json").read_text())
    rows = {row["name"]: row for row in raw["rows"]}
    assert list(rows) == ["ours", *only.split()]
    assert {name: row["absent"] for name, row in rows.items() if row["absent"]} == absent
    for name in measured:
        timing, ratio = rows[name]["timing"], rows[name]["ratio"]
        assert len(timing["values_ms"]) == sum(timing["blocks"]) >= 20
        assert timing["first_call_s"] > 0
        assert 0 < ratio["low"] <= ratio["high"]
        times = float(np.median(timing["values_ms"])) / float(np.median(rows["ours"]["timing"]["values_ms"]))
        assert 0.5 * times < ratio["value"] < 2 * times
    assert raw["environment"]["packages"]["torch"] == torch.__version__

    page = (tmp_path / "peers.md").read_text().splitlines()
    table = {line.split("|")[1].strip(): line for line in page if line.startswith("| ")}
    for name, row in rows.items():
        line = table[CONTENDERS[name].what]
        if row["absent"]:
            assert row["absent"] in line
        else:
            per_step = float(line.split("|")[4])
            assert per_step == pytest.approx(np.median(row["timing"]["values_ms"]) / 2, rel=1e-3)
    assert f"[{rows['ase_eager']['ratio']['low']:.3g}, " in table["ASE, our calculator, eager"]
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("name", ["ours", "ase_eager", "torchsim"])
def test_the_same_work(name: str, batch_size: int, work: Work) -> None:
    work = replace(work, systems=make_start(batch_size, 1))
    try:
        running = make_ready(CONTENDERS[name], work)
    except AbsentError as error:
        if str(error).startswith("not installed"):
            pytest.skip(str(error))
        assert (name, str(error)) == ("ase_eager", "moves one structure at a time")  # noqa: PT017 (which of the two)
        assert batch_size > 1
        return
    running.call()
    require_same_work(name, running, work)


def test_positions_change_with_every_call(work: Work) -> None:
    running = make_ready(CONTENDERS["ase_eager"], work)
    seen = []
    for _ in range(3):
        running.call()
        seen.append(np.array(running.positions()))
    assert not (seen[0] == seen[1]).any()
    assert not (seen[1] == seen[2]).any()


def test_wrong_forces_are_refused(work: Work) -> None:
    def stronger(work: Work) -> Running:
        right = ours(work)
        return replace(right, forces=lambda: 1.001 * right.forces())

    with pytest.raises(DifferentWorkError, match=r"forces are 0\.001 off eager FP64"):
        _compare(work, Contender("stronger", None, stronger))


def test_another_timestep_is_refused(work: Work) -> None:
    def faster(work: Work) -> Running:
        return ours(replace(work, timestep_fs=1.1 * work.timestep_fs))

    with pytest.raises(DifferentWorkError, match=r"after 2 steps its atoms are 0\.1\d* of their way off"):
        _compare(work, Contender("faster", None, faster))


def test_atoms_that_are_lost_are_refused(work: Work) -> None:
    def lost(work: Work) -> Running:
        right = ours(work)
        return replace(right, positions=lambda: torch.nan * right.positions())

    with pytest.raises(DifferentWorkError, match="NaN or infinite"):
        _compare(replace(work, steps_per_call=1), Contender("lost", None, lost, weights="random"))


def test_a_peer_that_breaks_is_a_row(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(work: Work) -> Running:
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setitem(CONTENDERS, "teacher", Contender("broken", None, broken))
    words = "--device cpu --engine eager --steps-per-call 1 --min-calls 1 --min-time-s 0.001 --only teacher --output"
    with pytest.raises(SystemExit, match="peers: teacher failed"):
        peers.main([*words.split(), str(tmp_path), "--checkpoint", str(weights)])
    assert "| broken |  | ours | RuntimeError: no such kernel |" in (tmp_path / "peers.md").read_text()


def test_a_peer_that_does_something_else_ends_the_command_in_a_line(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faster(work: Work) -> Running:
        return ours(replace(work, timestep_fs=1.1 * work.timestep_fs))

    monkeypatch.setitem(CONTENDERS, "teacher", Contender("faster", None, faster))
    words = "--device cpu --engine eager --steps-per-call 1 --min-calls 1 --min-time-s 0.001 --only teacher --output"
    with pytest.raises(SystemExit, match=r"peers: teacher: after 1 steps its atoms are 0\.\d+ of their way off"):
        peers.main([*words.split(), str(tmp_path), "--checkpoint", str(weights)])


def test_a_missing_module_is_named(work: Work) -> None:
    def lacking(work: Work) -> Running:
        import no_such_module  # type: ignore[import-not-found]

        return no_such_module.run(work)

    with pytest.raises(AbsentError, match="not installed: no_such_module"):
        make_ready(Contender("lacking", None, lacking), work)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "cuda_graph"], "engine 'cuda_graph' needs a CUDA GPU"),
        (["--batch-size", "0"], "batch_size=0 must be greater than 0"),
        (["--checkpoint", "nowhere"], "no checkpoint 'nowhere'"),
    ],
)
def test_impossible_options_are_refused(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=message):
        peers.main(["--device", "cpu", "--output", str(tmp_path), *words])


def _compare(work: Work, contender: Contender) -> None:
    compare(work, {"ours": CONTENDERS["ours"], "other": contender}, 1, 0.001, DisturbanceMonitor(CPU))
