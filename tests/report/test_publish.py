"""A report as it is kept in a repository."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlff_exp.cli.publish import publish_main
from mlff_exp.report.publish import MAX_KERNELS, headline, publish
from tests.helpers.sweeps import SWEEP, changed, evaluated, moved, timed

ENVIRONMENT = {
    "gpu": "NVIDIA H100 80GB HBM3", "hostname": "a-node", "platform": "Linux", "torch": "2.11.0",
    "git_diff": "",
}  # fmt: skip


def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: str, dirty: int | None = None) -> Path:
    """The report of a sweep; one of its runs may have been made with uncommitted changes."""
    for number, result in enumerate(SWEEP):
        environment = ENVIRONMENT | ({"git_diff": "secret"} if number == dirty else {})
        (tmp_path / "sweep" / str(number)).mkdir(parents=True)
        replace(result, environment=environment).save(tmp_path / "sweep" / str(number))
        lines = ["total_us,launches,kernel", *(f"{20 - rank},1,kernel_{rank}" for rank in range(12))]
        (tmp_path / "sweep" / str(number) / "kernels.csv").write_text("\n".join(lines))
    words = ["mlff-exp-publish", str(tmp_path / "sweep"), str(tmp_path / "docs"), "--name", "phase1", *more]
    monkeypatch.setattr(sys, "argv", words)
    publish_main()
    return tmp_path / "docs"


def test_all_of_a_sweep_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = published(tmp_path, monkeypatch)
    page = (target / "README.md").read_text()
    images = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)
    assert len(images) >= 3
    assert {path.name for path in target.glob("*.png")} == set(images)
    assert "## The plan" in page
    assert "## Our targets" in page
    with (target / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(SWEEP)
    for row, result in zip(rows, SWEEP, strict=True):
        assert row["status"] == result.status
        assert {name: float(row[name]) for name in result.metrics} == pytest.approx(result.metrics, rel=1e-5)


def test_the_headline_has_a_line_for_each_force_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (published(tmp_path, monkeypatch) / "headline.md").read_text().splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| eager · fp32",
        "| cuda_graph · fp32",
        "| cuda_graph · fp16_autocast",
    ]
    # One structure in 10 / 70 ms, and sixteen in as much.
    assert lines[4] == (
        "| cuda_graph · fp16_autocast | 0.143 ms (1) | 70.0× [66.5, 73.5] | 112,000 (16) | 1,120× [1,064, 1,176] "
        "| 0.1% | NO-GO |"
    )


def test_the_costliest_kernels_of_each_run_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of an attempt that was put aside, nor of a run that was killed before its result."""
    for name in ("1.attempt0", "99"):
        (tmp_path / "sweep" / name).mkdir(parents=True)
        (tmp_path / "sweep" / name / "kernels.csv").write_text("total_us,launches,kernel\n99,1,none")
    with (published(tmp_path, monkeypatch) / "kernels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == MAX_KERNELS * len(SWEEP)
    assert rows[0] == {
        "run": "nve · benzene · cuda_graph · fp32 · ×3",
        "total_us": "20",
        "launches": "1",
        "kernel": "kernel_0",
    }


def test_of_runs_that_were_not_timed_there_is_no_table_of_times(tmp_path: Path) -> None:
    moving = {0: moved("fused", "fp32", "GO")}
    publish(tmp_path, moving, "nve_gate", tmp_path / "docs")
    assert {path.name for path in (tmp_path / "docs").iterdir()} == {
        "README.md", "runs.csv", "environment.json", "how-near-nve-came-to-what-its-gate-allows.png",
    }  # fmt: skip


def test_nothing_private_is_there_and_all_that_the_page_says_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = published(tmp_path, monkeypatch)
    environment = json.loads((target / "environment.json").read_text())
    assert environment == {
        "gpu": "NVIDIA H100 80GB HBM3",
        "platform": "Linux",
        "torch": "2.11.0",
        "uncommitted_changes": False,
    }
    assert "| platform | Linux |" in (target / "README.md").read_text()
    text = "".join(path.read_text() for path in target.iterdir() if path.suffix != ".png")
    assert "a-node" not in text
    assert str(tmp_path) not in text


def test_what_nobody_can_repeat_is_refused_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        published(tmp_path, monkeypatch, dirty=3)
    assert refused.value.code == 2
    message = f"{tmp_path / 'sweep'}: 1 of 8 runs were made from a tree with uncommitted changes, the first of them 3"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--allow-dirty"])
    publish_main()
    environment = json.loads((tmp_path / "docs" / "environment.json").read_text())
    assert environment["uncommitted_changes"] is True
    assert environment["git_diff_sha256"] == [hashlib.sha256(b"secret").hexdigest()]
    assert "secret" not in (tmp_path / "docs" / "environment.json").read_text()


def test_the_headline_has_the_worst_error_and_marks_all_that_is_not_to_be_trusted() -> None:
    first, best = (replace(result, tags={"timing.trust": "throttled"}) for result in (SWEEP[3], SWEEP[6]))
    unseen = evaluated("cuda_graph", "fp32", "validation", force_relative_rmse_vs_fp64_percent=0.25)
    results = [*SWEEP[:3], first, *SWEEP[4:6], best, *SWEEP[7:], unseen]
    assert headline(results).splitlines()[3:] == [
        "| cuda_graph · fp32 | 0.25 ms (1) (?) | 40.0× [38.0, 42.0] (?) | 64,000 (16) | 640× [608, 672] | 0.25% | GO |",
        "| cuda_graph · fp16_autocast | 0.143 ms (1) | 70.0× [66.5, 73.5] | 112,000 (16) (?) "
        "| 1,120× [1,064, 1,176] (?) | 0.1% | NO-GO |",
    ]


def test_systems_have_lines_of_their_own_in_the_headline() -> None:
    water = changed(timed("cuda_graph", "fp32", 1, 90.0), system={"name": "water"})
    lines = [line.split(" | ") for line in headline([*SWEEP[:5], water]).splitlines()]
    assert [(line[0], line[2], line[-1]) for line in lines[2:]] == [
        ("| benzene · eager · fp32", "1.00× [0.95, 1.05]", " |"),
        ("| benzene · cuda_graph · fp32", "40.0× [38.0, 42.0]", "GO |"),
        ("| water · cuda_graph · fp32", "90.0× [85.5, 94.5]", " |"),
    ]


def test_boxes_and_files_are_systems_of_their_own() -> None:
    boxes = [
        changed(timed("cuda_graph", "fp32", 1, speedup), system=system)
        for speedup, system in (
            (30.0, {"name": "water_box_8"}), (20.0, {"name": "water_box_27"}),
            (10.0, {"name": "file", "path": "a/my.xyz"}),
        )
    ]  # fmt: skip
    lines = [line.split(" | ") for line in headline(boxes).splitlines()]
    assert [(line[0], line[2][:5]) for line in lines[2:]] == [
        ("| water_box_8 · cuda_graph · fp32", "30.0×"),
        ("| water_box_27 · cuda_graph · fp32", "20.0×"),
        ("| my · cuda_graph · fp32", "10.0×"),
    ]


def test_a_directory_without_runs_is_refused_and_so_is_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mlff-exp-publish", str(tmp_path), str(tmp_path / "docs")])
    with pytest.raises(SystemExit):
        publish_main()
    assert "holds no runs" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["mlff-exp-publish", str(tmp_path / "nowhere"), str(tmp_path / "docs")])
    with pytest.raises(SystemExit):
        publish_main()
    assert "nowhere is no directory" in capsys.readouterr().err
    (tmp_path / "12-00-00-000000").mkdir()
    monkeypatch.setattr(sys, "argv", ["mlff-exp-publish", str(tmp_path / "12-00-00-000000"), str(tmp_path / "docs")])
    moved("fused", "fp32", "GO").save(tmp_path / "12-00-00-000000")
    with pytest.raises(SystemExit):
        publish_main()
    assert "12-00-00-000000 is a single run" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["mlff-exp-publish", str(tmp_path), str(tmp_path / "docs")])
    with pytest.raises(SystemExit):
        publish_main()
    assert "holds no runs of a sweep" in capsys.readouterr().err
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "result.json").write_text("{")
    with pytest.raises(SystemExit) as refused:
        publish_main()
    assert refused.value.code == 2
    assert re.fullmatch(
        r"mlff-exp-publish: .*/0/result\.json is not a result of this version: .*\n", capsys.readouterr().err
    )
    assert not (tmp_path / "docs").exists()
