"""Tables, promises and figures from results that are made up."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mlff_exp.cli.report import parsed_sweep, report_main, sweep_parser
from mlff_exp.report.content import report_content
from mlff_exp.report.figures import figures
from mlff_exp.report.markdown import markdown
from mlff_exp.report.report import read_sweep, write_report
from mlff_exp.report.target_files import load_targets
from mlff_exp.report.targets import JudgedTarget, Target
from mlff_exp.report.targets import judge_targets as judge_list
from mlff_exp.report.terminal import VERDICT_FILE, describe_result, terminal_table, unfinished
from mlff_exp.report.text import format_number, markdown_table
from mlff_exp.report.validity import validity
from mlff_exp.results.failure import Failure
from mlff_exp.results.gate import combine_verdicts
from mlff_exp.results.result import ResultError, RunResult
from mlff_exp.results.verdict import Criterion, Verdict
from tests.helpers.results import full_result
from tests.helpers.sweeps import CRITERIA, SWEEP, changed, config, evaluated, interval, moved, timed

PLANNED, OURS, OF_FUSED = load_targets(["plan", "ours"])
PLAN, TARGETS, FUSED_TARGETS = (tuple(listed.targets) for listed in (PLANNED, OURS, OF_FUSED))


def judge_targets(results: list[RunResult], lines: Iterable[Target] = PLAN) -> list[JudgedTarget]:
    """Judge some targets as those of the plan are: benzene, or else the first system, on any hardware."""
    return judge_list(results, replace(PLANNED, targets=tuple(lines)))


def by_name(judged: list[JudgedTarget]) -> dict[str, JudgedTarget]:
    return {item.line.name: item for item in judged}


def test_the_promises_of_the_plan_are_held_against_the_runs() -> None:
    judged = by_name(judge_targets(SWEEP))
    assert len(judged) == len(PLAN)
    assert all(item.held for item in judged.values())
    single = judged["compiled, single structure, against eager"].measured
    assert single is not None
    assert (single.number.value, single.number.low, single.run) == (
        40,
        38,
        "inference · benzene · cuda_graph · fp32 · B1",
    )
    memory = judged["memory of FP16 against FP32, largest batch / %"].measured
    assert memory is not None
    assert memory.number.value == pytest.approx(-60)
    warm = judged["NVE: mean temperature, distance from 300 K / K"].measured
    assert warm is not None
    assert warm.number.value == 5


@pytest.mark.parametrize("line", [*PLAN, *TARGETS, *FUSED_TARGETS], ids=lambda line: line.name)
def test_no_promise_is_held_by_runs_that_were_not_made(line: Target) -> None:
    (judged,) = judge_targets([timed("eager", "fp32", 1, 1.0)], [line])
    assert judged.measured is None
    assert judged.held is None


def test_the_unfavourable_end_of_the_interval_counts() -> None:
    (line,) = (line for line in PLAN if line.name == "compiled, single structure, against eager")
    assert [judge_targets([timed("compile", "fp32", 1, value)], [line])[0].held for value in (1.3, 1.37)] == [
        False,
        True,
    ]


def test_the_plan_is_shown_whole_and_of_our_targets_what_was_measured() -> None:
    promises = report_content([timed("eager", "fp16_autocast", 1, 0.9)]).promises
    plan, ours = ({line.cells[0]: line.cells[2] for line in lines} for lines in promises.values())
    assert list(plan) == [line.name for line in PLAN]
    answered = ["energy MAE of FP16 / %", "force RMSE of FP16 / %"]
    assert [name for name, value in plan.items() if value != "not measured"] == answered
    assert list(ours) == [answered[0], "energy MAE of FP16 / (meV/atom)", answered[1]]


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [(1.31, 1.2963, 1.37, "1.31 [1.2963, 1.37]"), (1.5, 1.4249, 1.57, "1.5 [1.42, 1.57]")],
    ids=["beside the limit", "beyond"],
)
def test_a_number_beside_its_limit_shows_on_which_side_it_is(value: float, low: float, high: float, shown: str) -> None:
    run = timed("compile", "fp32", 1, value)
    ends = {"speedup_vs_baseline_ci_low": low, "speedup_vs_baseline_ci_high": high}
    plan = report_content([replace(run, metrics={**run.metrics, **ends})]).promises["The plan"]
    assert plan[0].cells[2] == shown


def test_steps_of_dynamics_and_the_engine_beside_it_are_held_against_the_targets() -> None:
    runs = [
        *(
            changed(run, task={**run.config["task"], "replicas": 8})
            for run in (
                moved("fused", "fp32", "GO", steps_per_s=8000.0),
                moved("cuda_graph", "fp32", "GO", steps_per_s=4000.0),
            )
        ),
        timed("cuda_graph", "fp32", 16, 200.0),
        timed("fused", "fp16_autocast", 16, 80.0, **interval("speedup_vs_cuda_graph", 2.05)),
    ]
    judged = by_name(judge_targets(runs, [*TARGETS, *FUSED_TARGETS]))
    step = judged["NVE: step of eight molecules, FP32 / µs"]
    assert step.measured is not None
    assert (step.measured.number.value, step.held) == (125.0, True)
    assert judged["NVE: step of one molecule, FP32 / µs"].measured is None
    beside = judged["fused against cuda_graph, FP16, batch 16"]
    assert beside.measured is not None
    assert (beside.measured.number.value, beside.held) == (2.05, False)
    fastest = judged["structures per second at the best batch"].measured
    assert fastest is not None
    assert fastest.number.value == 1000 * 16 / (10 / 80), "of the fused engine alone"


def test_promises_are_about_benzene_or_else_the_first_system() -> None:
    water, ethanol = (
        changed(timed("cuda_graph", "fp32", 1, speedup), system={"name": name})
        for name, speedup in (("water", 400.0), ("ethanol", 300.0))
    )
    checked = evaluated("cuda_graph", "fp32", "validation")
    for runs, expected in (([*SWEEP, water], 40), ([water, *SWEEP], 40), ([checked, water, ethanol], 400)):
        best = judge_targets(runs)[0].measured
        assert best is not None
        assert best.number.value == expected


def test_nothing_is_promised_of_dynamics_that_have_hardly_begun() -> None:
    (line,) = (line for line in PLAN if line.name.startswith("NVE: drift"))
    for duration_ps, held in ((9.9, None), (10.0, True)):
        task = {"name": "nve", "replicas": 3, "duration_ps": duration_ps}
        assert judge_targets([changed(moved("fused", "fp32", "GO"), task=task)], [line])[0].held is held


def test_one_structure_at_a_time_is_no_batch() -> None:
    single = [timed("cuda_graph", precision, 1, 40.0) for precision in ("fp32", "fp16_autocast")]
    names = {"memory of FP16 against FP32, largest batch / %", "structures per second at the best batch"}
    lines = [line for line in (*PLAN, *TARGETS) if line.name in names]
    assert len(lines) == 3
    assert [item.measured for item in judge_targets(single, lines)] == [None] * 3
    assert None not in [item.measured for item in judge_targets(SWEEP, lines)]


@pytest.mark.parametrize(
    "result",
    [
        changed(timed("fused", "fp32", 1, 400.0), system={"name": "water"}),
        changed(timed("fused", "fp32", 1, 400.0), model={"name": "student", "checkpoint": "student_small"}),
        replace(timed("fused", "fp32", 1, 400.0), environment={"gpu": "NVIDIA A100"}),
        changed(
            moved("fused", "fp32", "GO"),
            task={"name": "nve", "replicas": 3, "systems": ["benzene", "water"], "duration_ps": 100.0},
        ),
    ],
    ids=["system", "checkpoint", "gpu", "side by side"],
)
def test_targets_are_of_benzene_the_shipped_student_and_an_h100(result: RunResult) -> None:
    for listed in (OURS, OF_FUSED):
        assert [run for run in [result, *SWEEP] if listed.about.selects(run)] == SWEEP
    text = markdown("a sweep", report_content([result]))
    assert "Our targets" not in text


def test_a_step_of_molecules_is_of_one_system() -> None:
    task = {"name": "nve", "replicas": 8, "systems": ["benzene", "water"]}
    both = changed(moved("fused", "fp32", "GO", steps_per_s=9000.0), task=task)
    (line,) = (line for line in TARGETS if line.name == "NVE: step of eight molecules, FP32 / µs")
    assert judge_targets([both], [line])[0].measured is None


@pytest.mark.parametrize("lines", [PLAN, TARGETS])
def test_the_worst_error_of_batches_and_of_the_validation_set_counts(lines: tuple[Target, ...]) -> None:
    force, energy = "force_relative_rmse_vs_fp64_percent", "energy_relative_mae_vs_fp64_percent"
    own = evaluated("eager", "fp16_autocast", "/my.npz", **{force: 90.0, energy: 90.0})
    worse = evaluated("fused", "fp16_autocast", "validation", **{force: 3.0, energy: 1e-5})
    judged = by_name(judge_targets([*SWEEP, own, worse], lines))
    forces, energies = (judged[f"{name} of FP16 / %"] for name in ("force RMSE", "energy MAE"))
    assert forces.measured is not None
    assert (forces.measured.number.value, forces.held) == (3.0, False)
    assert forces.measured.run == "accuracy · fused · fp16_autocast"
    assert energies.measured is not None
    assert (energies.measured.number.value, energies.held) == (1e-4, True), "of a batch that was timed"


def test_what_is_written_by_hand_keeps_no_promise_of_compiling() -> None:
    by_hand = [
        *(timed("fused", "fp32", size, 500.0) for size in (1, 16)),
        *(timed("fused", "fp16_autocast", size, 900.0, **interval("speedup_vs_fp32", 9.0)) for size in (1, 16, 1024)),
        timed("fused", "fp32", 1024, 500.0),
    ]
    plan = judge_targets([*SWEEP, *by_hand])
    assert [item.measured for item in plan] == [item.measured for item in judge_targets(SWEEP)]
    best = by_name(judge_targets([*SWEEP, *by_hand], TARGETS))
    for name in ("best FP32 engine, batch 16, against eager", "memory of FP16 against FP32, largest batch / %"):
        measured = best[name].measured
        assert measured is not None
        assert "fused" in measured.run


def test_what_can_be_trusted_goes_before_what_is_faster() -> None:
    shaken = replace(timed("compile", "fp32", 1, 90.0), tags={"timing.trust": "throttled"})
    name = "compiled, single structure, against eager"
    found = [by_name(judge_targets(runs))[name].measured for runs in ([*SWEEP, shaken], [SWEEP[1], shaken])]
    assert [(of.number.value, of.trusted) for of in found if of is not None] == [(40, True), (90, False)]


def test_a_timing_that_is_not_trusted_neither_holds_nor_breaks_a_promise() -> None:
    name = "compiled, single structure, against eager"
    for speedup in (90.0, 1.01):
        shaken = replace(timed("compile", "fp32", 1, speedup), tags={"timing.trust": "throttled"})
        assert by_name(judge_targets([shaken]))[name].held is None
        text = markdown("a sweep", report_content([shaken]))
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert "(?) | not trusted |" in line
        assert validity(shaken, [shaken, moved("compile", "fp32", "GO")]) == "not trusted"


def test_a_short_go_says_nothing_of_stability() -> None:
    fast = timed("cuda_graph", "fp32", 1, 40.0)
    for verdict, expected in (("GO", "stability not known"), ("NO-GO", "no: unstable")):
        run = moved("cuda_graph", "fp32", verdict)
        short = changed(run, task={**run.config["task"], "duration_ps": 2.0})
        assert validity(fast, [short]) == expected


def test_a_file_that_was_not_written_is_told_and_not_named() -> None:
    run = replace(moved("fused", "fp32", "GO"), tags={"files.not_written": "validation_report.txt: OSError: full"})
    said = describe_result(run)
    assert "not written: validation_report.txt: OSError: full" in said
    assert "what that is worth" not in said
    assert "files are missing" in markdown("a sweep", report_content([run, run]))


def test_a_verdict_of_a_run_without_a_trajectory_is_shown() -> None:
    verdict = Verdict("NO-GO", "strict", (Criterion("drift", None, None, 1.0, False),), ("drift is not measured",))
    assert "drift is not measured" in describe_result(replace(full_result(), verdict=verdict))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.002, 0.006, (0.002, 0.0, 0.006)), (0.001, 0.003, (0.002, 0.001, 0.003)), (-3, -1, (2, 1, 3))],
)
def test_the_distance_from_what_is_ideal_is_within_its_interval(
    low: float, high: float, expected: tuple[float, float, float]
) -> None:
    metric = "energy_drift_mean_mev_per_atom_per_ps"
    ends = {f"{metric}_ci_low": low, f"{metric}_ci_high": high}
    run = moved("fused", "fp32", "GO", **{metric: (low + high) / 2}, **ends)
    (line,) = (line for line in TARGETS if line.name.startswith("NVE: heating"))
    measured = judge_targets([run], [line])[0].measured
    assert measured is not None
    assert (measured.number.value, measured.number.low, measured.number.high) == pytest.approx(expected)


def test_memory_is_compared_where_it_was_measured() -> None:
    """Not on a CPU."""
    on_cpu = timed("cuda_graph", "fp32", 16, 40.0)
    on_cpu = replace(on_cpu, metrics={name: of for name, of in on_cpu.metrics.items() if name != "peak_memory_mib"})
    judged = by_name(judge_targets([on_cpu, *(timed("cuda_graph", "fp16_autocast", size, 70.0) for size in (1, 16))]))
    assert judged["memory of FP16 against FP32, largest batch / %"].measured is None


def test_the_interval_of_the_throughput_is_that_of_the_latency() -> None:
    latency = {"latency_median_ms_ci_low": 0.1, "latency_median_ms_ci_high": 0.16}
    (line,) = (line for line in FUSED_TARGETS if line.name.startswith("structures"))
    measured = judge_targets([timed("fused", "fp32", 16, 80.0, **latency)], [line])[0].measured
    assert measured is not None
    assert (measured.number.low, measured.number.value, measured.number.high) == pytest.approx((1e5, 1.28e5, 1.6e5))


def test_a_step_has_no_interval_and_the_table_says_so() -> None:
    run = moved("fused", "fp32", "GO", steps_per_s=8000.0)
    text = markdown("a sweep", report_content([changed(run, task={**run.config["task"], "replicas": 8})]))
    assert "| ≤ 150 µs: 100 ps in 30 s | 125 (no interval) | yes |" in text


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (timed("eager", "fp32", 1, 1.0), ""),
        (timed("cuda_graph", "fp32", 1, 40.0), "yes"),
        (timed("cuda_graph", "fp16_autocast", 1, 70.0), "no: unstable"),
        (timed("cuda_graph", "tf32", 1, 70.0), "stability not known"),
        (timed("cuda_graph", "fp32", 1, 1.02), "no: not faster"),
        (timed("cuda_graph", "fp32", 1, 40.0, force_relative_rmse_vs_fp64_percent=2.0), "no: inaccurate"),
    ],
)
def test_a_valid_speedup_is_fast_accurate_and_stable(result: RunResult, expected: str) -> None:
    assert validity(result, SWEEP) == expected


def test_a_speedup_is_valid_where_its_own_system_and_weights_were_stable() -> None:
    result = timed("cuda_graph", "fp32", 1, 40.0)
    stable = moved("cuda_graph", "fp32", "GO")
    unknown = "stability not known"
    assert validity(result, [changed(stable, system={"name": "water"})]) == unknown
    assert validity(result, [replace(stable, tags={"checkpoint.sha256": "another"})]) == unknown
    judged_by_nothing = replace(stable, verdict=Verdict("GO", "off", (), ()))
    assert validity(result, [judged_by_nothing]) == unknown
    exploded = replace(stable, verdict=Verdict("NO-GO", "off", (), ("exploded",)))
    assert validity(result, [exploded, stable]) == "no: unstable"


def test_of_systems_side_by_side_each_has_its_own_verdict() -> None:
    result = timed("cuda_graph", "fp32", 1, 40.0)
    both = changed(
        moved("cuda_graph", "fp32", "NO-GO"),
        task={"name": "nve", "replicas": 3, "systems": ["benzene", "water"], "duration_ps": 100.0},
    )
    stable = Verdict("GO", "strict", CRITERIA, ())
    verdicts = {"benzene": stable, "water": Verdict("NO-GO", "strict", CRITERIA, ("temperature_mean_k is 400",))}
    both = replace(both, verdict=combine_verdicts(verdicts))
    assert validity(result, [both]) == "yes"
    assert validity(changed(result, system={"name": "water"}), [both]) == "no: unstable"
    assert validity(changed(result, system={"name": "methane"}), [both]) == "stability not known"


def test_the_report_of_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = replace(SWEEP[3], environment={"gpu": "A100", "packages": {"torch": "2.13.0"}})
    shaken = replace(SWEEP[4], tags={"timing.trust": "other processes used 1.0 cores"})
    failure = Failure("out_of_memory", "CUDA out of memory [/at alloc.cpp]")
    failed = RunResult(config=config("inference", "compile", "fp32", 4096), status="FAILED", failure=failure)
    for index, result in enumerate([*SWEEP, elsewhere, shaken, failed]):
        (tmp_path / str(index)).mkdir()
        result.save(tmp_path / str(index))
    (tmp_path / "3.attempt0").mkdir()
    failed.save(tmp_path / "3.attempt0")
    written = write_report(tmp_path, "a sweep")
    assert written.trust == "inference · benzene · cuda_graph · fp32 · B16: other processes used 1.0 cores"
    page, text = written.page.read_text(), (tmp_path / "report.md").read_text()
    for words in (
        "not finished: 1 of 11 runs",
        "FAILED: inference · benzene · compile · fp32 · B4096: out_of_memory: CUDA out of memory [/at alloc.cpp]",
        "40.0× [38.0, 42.0]",
        "1,120 [1,064, 1,176]",
        "640× [608, 672]",
        "1.050× [1.040, 1.060]",
        "not to be trusted: 1 of 8 timings, marked (?)",
        "0.250 (?)",
        "not to be compared with the first: 1 of 11 runs",
        "inference · benzene · cuda_graph · fp32 · B1 ran elsewhere than the first, with another gpu",
        "control: an engine and 5% planted, worst of 8",
        "compiled, single structure, against eager",
    ):
        assert words in text
        assert words in page
    assert page.count("<img") == len(figures(SWEEP)) == 8
    assert "http" not in page
    assert page.count("CUDA out of memory") == 2, "an attempt that was put aside is shown"
    assert '<td>FAILED</td><td colspan="7">out_of_memory' in page, "the reason is behind columns of nothing"
    assert "force MAE vs teacher" not in page, "a column of nothing"
    printed = capsys.readouterr().out
    assert "a sweep" in printed
    assert "[/at" in printed


def test_timings_that_resolve_nothing_are_told_of_in_one_line_and_marked_one_by_one(tmp_path: Path) -> None:
    """Four of them: what is below the line is folded."""
    unsure = [
        replace(result, metrics={**result.metrics, "control_slower_ci_low": 0.98}, tags={"timing.trust": "5% as 2%"})
        for result in SWEEP[3:7]
    ]
    for index, result in enumerate([SWEEP[0], SWEEP[1], *unsure]):
        (tmp_path / str(index)).mkdir()
        result.save(tmp_path / str(index))
    page = write_report(tmp_path, "a sweep").page.read_text()
    assert page.count("<details") == 1
    assert (
        '<details class="warning"><summary>not to be trusted: 4 of 5 timings, marked (?); 4 of them can&#39;t resolve '
        "a difference of 5%: ask for more calls (task.min_calls, task.min_time_s; of an experiment "
        "sweep.parameters.min_calls, sweep.parameters.min_time_s)</summary>" in page
    )
    assert page.count("<li>") == page.count(": 5% as 2%</li>") == 4
    assert page.count("<td>0.250 (?)</td>") == 2
    assert "<td>40 [38, 42] (?)</td><td>not trusted</td>" in page


def test_a_report_is_on_disk_before_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **keywords: Any) -> None:
        raise UnicodeEncodeError("ascii", "×", 0, 1, "ordinal not in range(128)")

    monkeypatch.setattr(Console, "print", fail)
    (tmp_path / "0").mkdir()
    SWEEP[0].save(tmp_path / "0")
    with pytest.raises(UnicodeEncodeError):
        write_report(tmp_path, "a sweep")
    assert sorted(path.name for path in tmp_path.glob("report.*")) == ["report.html", "report.md"]


@pytest.mark.parametrize(("gpu", "held_against"), [("NVIDIA H100 80GB HBM3", True), (None, False)])
def test_targets_for_an_h100_are_held_against_no_other_machine(
    tmp_path: Path, gpu: str | None, *, held_against: bool
) -> None:
    result = moved("cuda_graph", "fp32", "GO", energy_drift_mean_mev_per_atom_per_ps=0.001)
    (tmp_path / "0").mkdir()
    replace(result, environment={"gpu": gpu}).save(tmp_path / "0")
    text = write_report(tmp_path, "a sweep").page.with_suffix(".md").read_text()
    assert "The plan" in text
    assert ("Our targets" in text) is held_against


def test_numbers_stay_within_their_cells_whatever_the_names() -> None:
    results = [
        replace(result, config={**result.config, "engine": {"name": "compile", "mode": "max-autotune-no-cudagraphs"}})
        for result in SWEEP[1:7]
    ]
    figure = figures(results)["Speedup per structure over single eager FP32"]
    figure.draw_without_rendering()
    axes = figure.axes[0]
    widest = max(text.get_window_extent().width for text in axes.texts)
    assert widest < axes.bbox.width / 2, "two columns"
    assert "1,120×" in {text.get_text() for text in axes.texts}


def test_a_figure_marks_what_must_not_be_trusted_and_writes_numbers_out() -> None:
    made = figures([replace(SWEEP[1], tags={"timing.trust": "throttled"}), *SWEEP[2:7]])
    marked = {}
    for title, figure in made.items():
        figure.draw_without_rendering()
        words = [text for axes in figure.axes for text in (*axes.texts, *axes.get_yticklabels())]
        marked[title] = [word.get_text() for word in words if "(?)" in word.get_text()]
    assert marked == {
        "Speedup over eager FP32 at the same batch size": ["eager · fp32 · B1 (?)"],
        "Speedup per structure over single eager FP32": ["1×\n(?)"],
        "Speed against accuracy": ["(?)"],
        "Structures per second by batch size": ["(?)"],
        "Distribution of single calls": ["fp32 · B1 (?)"],
        "Peak memory": [],
        "What the first call costs": [],
    }
    scaling = made["Structures per second by batch size"]
    (mark,) = scaling.axes[0].texts
    assert mark.xy == (1, 100)  # type: ignore[attr-defined]
    assert [label.get_text() for label in scaling.axes[0].get_xticklabels()] == ["1", "16"]
    assert "1,000" in {label.get_text() for label in scaling.axes[0].get_yticklabels()}


def test_every_run_has_its_violin() -> None:
    engines, sizes = ("eager", "compile", "cuda_graph", "fused"), (1, 2, 4, 8, 16, 32)
    runs = [timed(engine, of, size, 2.0) for engine in engines for of in ("fp32", "fp16_autocast") for size in sizes]
    made = figures(runs)["Distribution of single calls"]
    assert [axes.get_title(loc="left") for axes in made.axes] == list(engines)
    for axes in made.axes:
        assert len(axes.collections) == len(axes.get_yticklabels()) == 12
    made.draw_without_rendering()
    boxes = [label.get_window_extent() for axes in made.axes for label in axes.get_yticklabels()]
    assert all(above.y0 >= below.y1 for above, below in pairwise(boxes)), "names overlap"


def test_names_in_a_panel_leave_out_its_engine() -> None:
    made = figures([timed("eager", "fp32", 1, 1.0), timed("compile", "fp32", 1, 2.0), timed("compile", "fp32", 8, 2.0)])
    panels = made["Distribution of single calls"].axes
    assert [[name.get_text() for name in axes.get_yticklabels()] for axes in panels] == [["B1"], ["B1", "B8"]]


def test_nothing_is_faster_and_more_exact_than_the_front() -> None:
    rng = np.random.default_rng(0)
    errors, speedups = 10 ** rng.uniform(-4, -1, 40), 10 ** rng.uniform(0, 2, 40)
    runs = [
        timed("fused", "fp32", 1, speedup, force_relative_rmse_vs_fp64_percent=error)
        for error, speedup in zip(errors, speedups, strict=True)
    ]
    (axes,) = figures(runs)["Speed against accuracy"].axes
    (line,) = axes.lines
    front = np.asarray(line.get_xydata())
    points = np.stack([errors, 100 * speedups], axis=1)
    better = (points[:, None, 0] < front[None, :, 0]) & (points[:, None, 1] > front[None, :, 1])
    assert not better.any()
    behind = (front[None, :, 0] <= points[:, None, 0]) & (front[None, :, 1] >= points[:, None, 1] * (1 - 1e-9))
    assert behind.any(axis=1).all(), "a point that nothing beats is not on it"


def test_errors_that_hardly_differ_are_no_price() -> None:
    made = figures(
        [timed("fused", "fp32", size, 2.0, force_relative_rmse_vs_fp64_percent=1 + size / 1e4) for size in (1, 4)]
    )
    assert "Speed against accuracy" not in made


@pytest.mark.parametrize(
    ("cold", "title", "notes"),
    [
        ((True, True), "from a cold cache", ["20 (2,000)", "20 (2,000)"]),
        ((False, False), "the compiler's cache may have been warm", ["20 (2,000)", "20 (2,000)"]),
        (
            (True, False),
            "cold: from a cold cache; others: the compiler's cache may have been warm",
            ["20 (2,000, cold)", "20 (2,000)"],
        ),
    ],
)
def test_the_first_call_says_what_the_cache_was(cold: tuple[bool, bool], title: str, notes: list[str]) -> None:
    runs = [
        changed(timed("compile", "fp32", size, 2.0), cold_compile=of) for size, of in zip((1, 16), cold, strict=True)
    ]
    (axes,) = figures(runs)["What the first call costs"].axes
    assert axes.get_title() == title
    assert [text.get_text() for text in axes.texts] == notes


def test_how_long_it_took_is_said_where_it_is_known() -> None:
    took = [replace(result, duration_s=90.0) for result in SWEEP]
    assert "\n\n8 runs, 12.0 minutes in all\n\n" in markdown("a sweep", report_content(took))
    brief = [replace(result, duration_s=2.0) for result in took]
    assert "8 runs, 16 seconds in all" in markdown("a sweep", report_content(brief))
    assert "6 of 8 runs, 9.0 minutes in all" in markdown("a sweep", report_content([*took[:6], *SWEEP[6:]]))
    assert "minutes" not in markdown("a sweep", report_content(SWEEP))


def test_the_terminal_says_once_what_is_the_same_for_all() -> None:
    runs = [timed("eager", "fp32", 1, 1.0), timed("cuda_graph", "fp32", 1, 40.0)]
    missing = Failure("unavailable", "engine=fused needs a CUDA GPU")
    skipped = [
        RunResult(config=timed("fused", "fp32", size, 1.0).config, status="SKIPPED", failure=missing)
        for size in (1, 16)
    ]
    found = report_content([*runs, *skipped])
    rows = found.rows
    table = terminal_table(rows, "a sweep", found.columns)
    name, *_ = table.columns
    assert str(name.header).replace("\n", " ") == "run (inference · benzene · …)"
    assert list(name.cells)[:4] == [
        "eager · fp32 · B1",
        "cuda_graph · fp32 · B1",
        "fused · fp32 · B1",
        "fused · fp32 · B16",
    ]
    assert not [cell for column in table.columns for cell in column.cells if "needs" in str(cell)]
    assert unfinished(rows) == ["2 SKIPPED: unavailable: engine=fused needs a CUDA GPU"]
    (alone,) = terminal_table(rows[:1], "one", found.columns).columns[0].cells
    assert alone == "inference · benzene · eager · fp32 · B1"


def test_a_single_run_says_what_its_numbers_are_and_why_they_are_doubted() -> None:
    doubted = replace(timed("eager", "fp32", 1, 2.0), tags={"timing.trust": "other processes used 1.5 cores"})
    first, why = describe_result(doubted).splitlines()
    assert first.startswith("inference · benzene · eager · fp32 · B1  FINISHED  latency / ms 5.000 (?)")
    assert "  speedup vs eager FP32 2.00×" in first
    assert why == "not to be trusted (?): other processes used 1.5 cores"
    moving = replace(
        moved("eager", "fp32", "NO-GO"),
        verdict=Verdict("NO-GO", "strict", (), ("it broke", "it heated")),
        artifacts=(VERDICT_FILE,),
    )
    *reasons, length = describe_result(moving).splitlines()[1:]
    assert reasons == ["NO-GO: it broke", "NO-GO: it heated"]
    task = {**moving.config["task"], "duration_ps": 0.5, "replicas": 1}
    short = replace(moving, config={**moving.config, "task": task}, metrics={"temperature_mean_k": 299.4})
    assert describe_result(short).splitlines()[-1].startswith("mean / K 299, 0.5 ps of 1 start; what that is worth: ")
    assert length.endswith(VERDICT_FILE)


def test_a_report_of_nothing_has_nothing() -> None:
    found = report_content([])
    assert (found.rows, found.promises, found.warnings, found.facts) == ([], {}, [], [])


def test_figures_of_nothing_are_none() -> None:
    assert figures([evaluated("eager", "fp32", "validation")]) == {}


def test_each_criterion_is_coloured_by_how_much_of_its_limits_is_used() -> None:
    criteria = (
        Criterion("both", -0.5, -1.0, 1.0, True),
        Criterion("both of another middle", 310.0, 280.0, 320.0, True),
        Criterion("most", 0.75, None, 0.5, False),
        Criterion("least", 6.0, 3.0, None, True),
        Criterion("far off", 80.0, None, 0.5, False),
        Criterion("below nothing", 0.0, 3.0, None, False),
        Criterion("not measured", None, None, 0.5, False),
    )
    runs = [
        moved("fused", "fp32", "GO"),
        replace(moved("fused", "tf32", "NO-GO"), verdict=Verdict("NO-GO", "strict", criteria, ())),
    ]
    (axes,) = figures(runs)["How near NVE came to what its gate allows"].axes
    assert [text.get_text() for text in axes.get_yticklabels()][:2] == [
        "energy_drift_percent   -1 … 1",
        "both   -1 … 1",
    ]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["fp32   GO", "tf32   NO-GO"]
    used = axes.images[0].get_array()
    assert isinstance(used, np.ma.MaskedArray)
    assert used.filled(-1).T.tolist() == [[0.001, *[-1] * 7], [-1, 0.5, 0.5, 1.5, 0.5, 2, 2, -1]]
    shown = ["-0.001", "-0.5", "310", "0.75 ✗", "6", "80 ✗", "0 ✗", "not measured ✗"]
    assert [text.get_text() for text in axes.texts if text.get_text()] == shown


def test_more_runs_than_criteria_go_down_the_page() -> None:
    precisions = ["fp64", "fp32", "tf32", "fp16_autocast"]
    (axes,) = figures([moved("fused", precision, "GO") for precision in precisions])[
        "How near NVE came to what its gate allows"
    ].axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"{precision}   GO" for precision in precisions]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["energy_drift_percent   -1 … 1"]
    assert [text.get_text() for text in axes.texts] == ["-0.001"] * 4


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.000123, "0.000123"), (-46.27, "-46.3"), (99.94, "99.9"), (356.4, "356"), (999.7, "1,000"), (-1234.5, "-1,234")],
)
def test_numbers_have_three_digits_and_no_powers_of_ten(value: float, written: str) -> None:
    assert format_number(value) == written


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    lines = markdown_table(("a", "b"), [("|x|", "y"), ("", "z")]).splitlines()
    assert [line.count("|") for line in lines] == [3] * 4


def swept(key: str, *values: Any) -> list[RunResult]:
    """NVE runs that differ in one key of their task."""
    return [
        changed(result, task={**result.config["task"], key: value}, seed=0)
        for value, result in zip(values, [moved("eager", "fp32", "GO")] * len(values), strict=True)
    ]


def test_what_was_swept_is_in_the_name_and_a_column(tmp_path: Path) -> None:
    for job, result in enumerate(swept("timestep_fs", 0.25, 0.5, 1)):
        (tmp_path / str(job)).mkdir()
        result.save(tmp_path / str(job))
    page = write_report(tmp_path, "a sweep").page
    text = page.with_suffix(".md").read_text()
    assert "| run | timestep_fs | status |" in text
    for value in ("0.25", "0.5", "1"):
        assert f"| nve · benzene · eager · fp32 · ×3 · timestep_fs={value} | {value} | FINISHED |" in text
        assert f"timestep_fs={value}</td><td>{value}</td><td>FINISHED</td>" in page.read_text()
    (axes,) = figures(list(read_sweep(tmp_path).values()))["How near NVE came to what its gate allows"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"timestep_fs={value}   GO" for value in ("0.25", "0.5", "1")
    ]


def test_a_report_has_the_jobs_that_it_is_of(tmp_path: Path) -> None:
    for job, result in enumerate(SWEEP[:3]):
        (tmp_path / str(job)).mkdir()
        result.save(tmp_path / str(job))
    assert list(read_sweep(tmp_path, range(2))) == [0, 1]
    assert write_report(tmp_path, "a sweep", range(2)).page.read_text().count("<td>FINISHED</td>") == 2


def test_a_result_that_cannot_be_read_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for job, result in enumerate(SWEEP[:3]):
        (tmp_path / str(job)).mkdir()
        result.save(tmp_path / str(job))
    damaged = tmp_path / "1" / "result.json"
    damaged.write_text(damaged.read_text()[:-40])
    written = write_report(tmp_path, "a sweep")
    page = written.page.read_text()
    assert page.count("<td>FINISHED</td>") == 2
    assert "left out, because they can't be read: 1 of 3 results" in unescape(page)
    assert len(written.left_out) == 1
    monkeypatch.setattr(sys, "argv", ["mlff-exp-report", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        report_main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"mlff-exp-report: left out: {damaged} is not a result of this version")
    with pytest.raises(ResultError, match="is not a result"):
        read_sweep(tmp_path)
    for path in tmp_path.glob("*/result.json"):
        path.write_text("")
    with pytest.raises(ResultError, match="is not a result"):
        write_report(tmp_path, "a sweep")


def test_runs_without_a_result_and_directories_of_no_run_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for job in (0, 1, 3):
        (tmp_path / str(job)).mkdir()
        SWEEP[job].save(tmp_path / str(job))
    (tmp_path / "multirun.yaml").write_text("n_jobs: 3\n")
    monkeypatch.setattr(sys, "argv", ["mlff-exp-report", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        report_main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        f"mlff-exp-report: left out: {tmp_path / '2'} has no result.json",
        f"mlff-exp-report: left out: {tmp_path / '3'} is none of the 3 runs of this sweep",
    ]
    assert (tmp_path / "report.html").read_text().count("<td>FINISHED</td>") == 2
    monkeypatch.setattr(sys, "argv", ["mlff-exp-report", ""])
    with pytest.raises(SystemExit) as ended:
        report_main()
    assert ended.value.code == 2
    assert "'' must name a directory" in capsys.readouterr().err


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "SKIPPED"])
def test_a_sweep_of_which_nothing_finished_has_a_report(tmp_path: Path, status: Any) -> None:
    for job, result in enumerate(swept("timestep_fs", 0.25, 0.5)):
        (tmp_path / str(job)).mkdir()
        failure = Failure("ConfigError", "\x1b[31mno [bold]such[/bold] <script>x</script> | file\nand more")
        RunResult(result.config, status, failure=failure).save(tmp_path / str(job))
    page = write_report(tmp_path, "a\nsweep [red] <b>").page
    text, html = page.with_suffix(".md").read_text(), page.read_text()
    assert text.startswith("# a sweep [red] &lt;b>\n")
    assert (
        f"timestep_fs=0.5 | 0.5 | {status} | ConfigError: no [bold]such[/bold] &lt;script>x&lt;/script> ∣ file |"
        in text
    )
    assert "<script>" not in text + html
    assert "\x1b" not in text + html
    assert f'<td>0.5</td><td>{status}</td><td colspan="1">ConfigError' in html


def test_systems_swept_beside_batches_have_curves_of_their_own() -> None:
    runs = [timed("eager", "fp32", size, 1.0) for size in (1, 16)] + [timed("compile", "fp32", 1, 2.0)]
    runs += [changed(timed("eager", "fp32", size, 9.0), system={"name": "water"}) for size in (1, 16)]
    made = figures(runs)
    rows = [
        label.get_text() for label in made["Speedup per structure over single eager FP32"].axes[0].get_yticklabels()
    ]
    assert rows == ["benzene · eager · fp32", "benzene · compile · fp32", "water · eager · fp32"]
    assert len(made["Structures per second by batch size"].axes[0].lines) == 3


def test_a_dollar_in_a_name_begins_no_formula() -> None:
    model = {"name": "student", "checkpoint": "a$b_{$.pt"}
    runs = [changed(timed("eager", "fp32", size, 1.0), model=model) for size in (1, 16)]
    for figure in figures([*runs, timed("eager", "fp32", 1, 1.0)]).values():
        figure.draw_without_rendering()


def test_training_is_reported_beside_what_is_measured() -> None:
    task = {"name": "distill", "n_features": 64, "n_interactions": 2}
    trained = RunResult({"task": task, "seed": 0}, metrics={"force_mae_mev_per_ang": 30.0})
    found = report_content([trained, *SWEEP])
    assert found.rows[0].cells[0] == "distill · 64/2"
    assert "The plan" in found.promises


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("0", "{", "0/result.json is not a result of this version"),
        ("0", '{"config": {"seed": 1}}', "0/result.json is not a result of this version: its config has no 'task'"),
        ("nested/0", "{}", "there is no 0/result.json; below it are sweeps: "),
        ("mine", "{}", "holds no runs of a sweep"),
    ],
)
def test_a_directory_that_is_no_sweep_ends_the_command_with_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    text: str,
    message: str,
) -> None:
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / "result.json").write_text(text)
    for words in ([str(tmp_path)], [str(tmp_path / "nowhere")], [], [str(tmp_path), "--nmae"]):
        monkeypatch.setattr("sys.argv", ["mlff-exp-report", *words])
        with pytest.raises(SystemExit) as ended:
            report_main()
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("mlff-exp-report: ")
        assert said.count("\n") == 1
        assert message in said or words != [str(tmp_path)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("sweep: {name: phase1}\n", "phase1"), ("", "12-00-00-000000_x"), (None, "12-00-00-000000_x")],
)
def test_a_sweep_has_the_name_that_it_recorded_whatever_its_directory_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, expected: str
) -> None:
    directory = tmp_path / "12-00-00-000000_x"
    (directory / "0").mkdir(parents=True)
    timed("eager", "fp32", 1, 1.0).save(directory / "0")
    if text is not None:
        (directory / "multirun.yaml").write_text(text)
    monkeypatch.setattr("sys.argv", ["mlff-exp-report", str(directory)])
    assert parsed_sweep(sweep_parser("mlff-exp-report", "")).name == expected
