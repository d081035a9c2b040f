"""The content of a report, independent of its format: rows, promises, warnings."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlff_exp.report.decision import decide
from mlff_exp.report.target_files import load_targets
from mlff_exp.report.targets import JudgedTarget, TargetList, judge_targets
from mlff_exp.report.text import format_number, format_ratio, one_line
from mlff_exp.report.validity import validity
from mlff_exp.results import (
    ENOUGH_PS,
    FORCES_TAG,
    METRICS,
    NON_CONSERVATIVE,
    NOT_COMPUTED,
    NOT_WRITTEN,
    PLANTED,
    STRESS_LEFT_OUT,
    Metric,
    RunResult,
    add_varied_keys,
    label,
    label_words,
    recorded_varied,
    short_names,
)

BEFORE, AFTER = ("run", "status"), ("valid speedup", "verdict")  # columns around those of the metrics
UNFINISHED = ("failed", "killed", "skipped")
LATENCY = "latency_median_ms"
SPEEDUP = METRICS["speedup_vs_baseline"].column
MORE_CALLS = "task.min_calls, task.min_time_s; of an experiment sweep.parameters.min_calls, sweep.parameters.min_time_s"
MAX_REASON = 200  # characters
PROMISES = ("promise", "target", "measured", "held", "run")
CONTROLS = {
    "control_same": "control: an engine and itself",
    "control_slower": f"control: an engine and {PLANTED:.0%} planted",
}
# Facts that have to be equal before timings are compared.
COMPARED = ("gpu", "driver", "cuda", "cpu", "threads", "packages", "git_commit", "git_diff")
ENVIRONMENT = (
    "gpu",
    "driver",
    "cuda",
    "cpu",
    "cpu_count",
    "threads",
    "cpu_governor",
    "python",
    "platform",
    "git_commit",
)


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    cells: tuple[str, ...]
    style: str
    words: tuple[str, ...] = ()  # that the name in the first cell is made of, where a run's name stands there


@dataclass(frozen=True)
class Warned:
    """A warning to read before comparing runs: in one line, and for each run."""

    summary: str
    details: Sequence[str]


@dataclass(frozen=True)
class Content:
    """The content of a report, independent of its format.

    Attributes:
        rows: of the table of runs.
        columns: of that table; behind the run's name the keys that were swept and that no other column has.
        decision: a sentence for each question that the report answers.
        promises: rows by the title of the list.
        warnings: before all else.
        took: how long the runs did; empty if none says.
        facts: where it ran.
    """

    decision: dict[str, str]
    rows: list[Row]
    promises: dict[str, list[Row]]
    warnings: list[Warned]
    took: str
    facts: list[Row]
    columns: Sequence[str]


def report_content(results: Sequence[RunResult], targets: Sequence[TargetList] | None = None) -> Content:
    """Make the content of a report on these runs and targets; the shipped targets if None."""
    results = named(results)
    everything, results = results, [result for result in results if "model" in result.config]  # others train one
    judged = {}
    for listed in load_targets() if targets is None else targets:
        lines = judge_targets(results, listed)
        judged[listed.title] = [line for line in lines if listed.show == "all" or line.measured is not None]
    described = next((result.environment for result in everything if result.environment), None)
    columns = _varied_columns(everything)
    rows = [
        _with_values(table_row(result, results), [recorded_varied(result.config).get(key, "") for key in columns])
        for result in everything
    ]
    return Content(
        decision=decide(results),
        rows=rows + [_with_values(item, [""] * len(columns)) for item in control_rows(results)],
        promises={title: _promises(lines) for title, lines in judged.items() if any(line.measured for line in lines)},
        warnings=warned(everything),
        took=_took(everything),
        facts=[Row(fact, "") for fact in machine_facts(described)] if described else [],
        columns=(BEFORE[0], *columns.values(), *table_columns()[1:]),
    )


def named(results: Sequence[RunResult]) -> list[RunResult]:
    """Return the same results, with the keys by which they differ where an earlier version recorded none."""
    configs = add_varied_keys([result.config for result in results])
    return [replace(result, config=config) for result, config in zip(results, configs, strict=True)]


def _varied_columns(results: Sequence[RunResult]) -> dict[str, str]:
    """Return headings of swept keys that no other column shows, by key."""
    return short_names(dict.fromkeys(key for result in results for key in recorded_varied(result.config)))


def _with_values(item: Row, values: Sequence[str]) -> Row:
    name, *others = (one_line(cell) for cell in item.cells)
    return replace(item, cells=(name, *values, *others), words=tuple(map(one_line, item.words)))


def untrusted(results: Sequence[RunResult]) -> list[str]:
    """Return the runs whose timings were disturbed, with the reasons."""
    return [f"{label(result.config)}: {result.tags['timing.trust']}" for result in results if not result.trusted]


def warned(results: Sequence[RunResult]) -> list[Warned]:
    """Return the warnings to read before comparing these runs."""
    failed = [result for result in results if result.status in ("FAILED", "KILLED")]
    elsewhere = _elsewhere(results)
    found = [
        Warned(
            f"not finished: {len(failed)} of {len(results)} runs; sweep.resume runs them again",
            [f"{result.status}: {label(result.config)}: {_reason(result)}" for result in failed],
        ),
        Warned(
            "files are missing, and the numbers are complete",
            [f"{label(result.config)}: {result.tags[NOT_WRITTEN]}" for result in results if NOT_WRITTEN in result.tags],
        ),
        Warned(
            "metrics of other packages are missing, and the other numbers are complete",
            [
                f"{label(result.config)}: {result.tags[NOT_COMPUTED]}"
                for result in results
                if NOT_COMPUTED in result.tags
            ],
        ),
        Warned(
            "the stress was left out, and its error is not known",
            [
                f"{label(result.config)}: {result.tags[STRESS_LEFT_OUT]}"
                for result in results
                if STRESS_LEFT_OUT in result.tags
            ],
        ),
        Warned(
            f"{NON_CONSERVATIVE}: the forces of {sum(one.non_conservative for one in results)} of {len(results)} runs "
            "are not the gradient of the energy",
            [f"{label(result.config)}: {_why_not(result)}" for result in results if result.non_conservative],
        ),
        Warned(_doubt(results), untrusted(results)),
        Warned(
            f"not to be compared with the first: {len(elsewhere)} of {len(results)} runs, made elsewhere",
            elsewhere,
        ),
    ]
    return [warning for warning in found if warning.details]


def _why_not(result: RunResult) -> str:
    """Return the reason why the forces of a run are not the gradient of the energy."""
    return result.tags.get(FORCES_TAG) or "by the criteria of its verdict"


def _took(results: Sequence[RunResult]) -> str:
    """Return the total time of the runs' processes."""
    seconds = [result.duration_s for result in results if result.duration_s is not None]
    if not seconds:
        return ""
    some = "" if len(seconds) == len(results) else f" of {len(results)}"
    total = sum(seconds)
    long = f"{total / 60:.1f} minutes" if total >= 60 else f"{total:.0f} seconds"
    return f"{len(seconds)}{some} runs, {long} in all"


def _doubt(results: Sequence[RunResult]) -> str:
    """Return how many timings can't be trusted, with advice where the machine is not the only reason."""
    timed = [result for result in results if "timing.trust" in result.tags]
    doubted = [result for result in timed if not result.trusted]
    unresolved = sum(result.metrics.get("control_slower_ci_low", math.inf) <= 1 for result in doubted)
    summary = f"not to be trusted: {len(doubted)} of {len(timed)} timings, marked (?)"
    if unresolved:
        summary += (
            f"; {unresolved} of them can't resolve a difference of {PLANTED:.0%}: ask for more calls ({MORE_CALLS})"
        )
    return summary


def _elsewhere(results: Sequence[RunResult]) -> list[str]:
    described = [result for result in results if result.environment]
    elsewhere = []
    for result in described[1:]:
        unlike = [key for key in COMPARED if result.environment.get(key) != described[0].environment.get(key)]
        if unlike:
            elsewhere.append(f"{label(result.config)} ran elsewhere than the first, with another {', '.join(unlike)}")
    return elsewhere


def _reason(result: RunResult) -> str:
    """Return in one line why a run did not finish."""
    assert result.failure is not None, "it did not finish"
    message = result.failure.message.partition("\n")[0]
    return f"{result.failure.kind}: {textwrap.shorten(one_line(message), MAX_REASON, placeholder=' …')}"


def table_columns() -> tuple[str, ...]:
    """Return the headings of the table of runs: every metric with a column has one, also those of other packages."""
    return (*BEFORE, *(metric.column for metric in _columns()), *AFTER)


def _columns() -> list[Metric]:
    return [metric for metric in METRICS if metric.column]


def _cell(metric: Metric, result: RunResult) -> str:
    """Format a metric of a run for the table; empty if it was not measured."""
    if metric.name not in result.metrics:
        return ""
    if metric.is_ratio and f"{metric.name}_ci_low" in result.metrics:
        return format_ratio(result, metric.name)
    doubted = " (?)" * (metric.name == LATENCY and not result.trusted)
    return f"{result.metrics[metric.name]:{metric.digits}}{doubted}"


def table_row(result: RunResult, others: Sequence[RunResult] = ()) -> Row:
    """Return the row of a run; a failed run has the reason instead of numbers."""
    name, words, shown = label(result.config), tuple(label_words(result.config)), _columns()
    if result.failure is not None:
        empty = [""] * (len(shown) + len(AFTER) - 1)
        return Row((name, result.status, *empty, _reason(result)), result.status.lower(), words)
    verdict = "" if result.verdict is None else _verdict(result)
    cells = (name, result.status, *(_cell(metric, result) for metric in shown), validity(result, others), verdict)
    return Row(cells, "" if result.verdict is None else result.verdict.decision.lower(), words)


def _verdict(result: RunResult) -> str:
    """Return the verdict, with the length of a trajectory that is too short for a GO, and the worst fault of forces."""
    verdict = result.verdict
    assert verdict is not None, "the row has one"
    duration_ps = result.config["task"].get("duration_ps", ENOUGH_PS)
    short = f" over {duration_ps:g} ps, too short" if verdict.decision == "GO" and duration_ps < ENOUGH_PS else ""
    if verdict.decision == "GO" and result.easier_than_usual:
        short += f" {' and '.join(result.easier_than_usual)} than usual"
    fault = f", {NON_CONSERVATIVE}" if result.non_conservative else ""
    return f"{verdict.decision}{fault}{short} ({verdict.gate})"


def control_rows(results: Sequence[RunResult]) -> list[Row]:
    """Return the worst controls of all runs: measured ratios whose true values are known."""
    rows = []
    for metric, name in CONTROLS.items():
        found = [result for result in results if metric in result.metrics]
        if found:
            truth = 1.0 if metric == "control_same" else 1 + PLANTED
            worst = max(found, key=lambda result: abs(result.metrics[metric] - truth))
            said = {
                BEFORE[0]: f"{name}, worst of {len(found)}",
                SPEEDUP: format_ratio(worst, metric, 3),
            }
            rows.append(Row(tuple(said.get(column, "") for column in table_columns()), "control"))
    return rows


def filled_columns(columns: Sequence[str], rows: Sequence[Row]) -> tuple[list[str], list[Row]]:
    """Return the columns in which some row has a value."""
    kept = [index for index in range(len(columns)) if any(item.cells[index] for item in rows)]
    filled = [replace(item, cells=tuple(item.cells[index] for index in kept)) for item in rows]
    return [columns[index] for index in kept], filled


def _promises(judged: Sequence[JudgedTarget]) -> list[Row]:
    rows = []
    for item in judged:
        value, run, style = "not measured", "", ""
        if item.measured is not None:
            found, run, number = item.measured, item.measured.run, item.measured.number
            value, low, high = (_beside(item.line.limit, end) for end in (number.value, number.low, number.high))
            if number.low != number.high:
                value += f" [{low}, {high}]"
            if found.timed_once:
                value += " (no interval)"
            if not found.trusted:
                value += " (?)"
            style = {None: "", True: "go", False: "no-go"}[item.held]
        unknown = "" if item.measured is None else "not trusted"
        held = {None: unknown, True: "yes", False: "no"}[item.held]
        rows.append(Row((item.line.name, item.line.promised, value, held, run), style))
    return rows


def _beside(limit: float, value: float) -> str:
    """Format a number with enough digits to differ from the limit."""
    return f"{value:,.5g}" if format_number(value) == format_number(limit) and value != limit else format_number(value)


def machine_facts(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return facts about the machine of a run, as rows."""
    known = {key: environment.get(key) for key in ENVIRONMENT}
    packages = environment.get("packages", {}).items()
    known["packages"] = ", ".join(f"{name} {version}" for name, version in packages if version) or None
    known["uncommitted changes"] = "yes" if environment.get("git_diff") else None
    return [(key.replace("_", " "), str(value)) for key, value in known.items() if value is not None]
