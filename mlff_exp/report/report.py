"""From finished runs to tables, figures and one self-contained page with a Markdown twin."""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from mlff_exp.common import atomic_write
from mlff_exp.report.target_files import load_targets
from mlff_exp.report.targets import JudgedTarget, TargetList, judge_targets
from mlff_exp.report.text import format_number, format_ratio, markdown_cell, markdown_table, one_line
from mlff_exp.report.validity import validity
from mlff_exp.results import (
    ENOUGH_PS,
    METRICS,
    NOT_COMPUTED,
    NOT_WRITTEN,
    RESULT_FILE,
    SEPARATOR,
    Metric,
    ResultError,
    RunResult,
    Verdict,
    label,
    recorded_varied,
    run_directories,
    short_names,
    told_apart,
)

BEFORE, AFTER = ("run", "status"), ("valid speedup", "verdict")  # columns around those of the metrics
MIN_WIDTH = 8  # characters of a column of the terminal's table
LEFT = (*BEFORE, *AFTER)
UNFINISHED = ("failed", "killed", "skipped")
LATENCY = "latency_median_ms"
SPEEDUP = METRICS["speedup_vs_baseline"].column
VERDICT_FILE = "validation_report.txt"
MORE_CALLS = "task.min_calls, task.min_time_s; of an experiment sweep.parameters.min_calls, sweep.parameters.min_time_s"
MAX_REASON = 200  # characters
MAX_UNFOLDED = 3  # lines below a warning that are shown without being asked for
PROMISES = ("promise", "target", "measured", "held", "run")
CONTROLS = {"control_same": "control: an engine and itself", "control_slower": "control: an engine and 5% planted"}
# What runs must have in common before their timings are compared.
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
    """One line of the table."""

    cells: tuple[str, ...]
    style: str


@dataclass(frozen=True)
class Warned:
    """What a reader must know before comparing runs: in one line, and run by run."""

    summary: str
    details: Sequence[str]


@dataclass(frozen=True)
class Content:
    """What a report says, however it is written.

    Attributes:
        rows: of the table of runs.
        columns: of that table; behind the run's name the keys that were swept and that no other column has.
        promises: rows by the title of the list.
        warnings: before all else.
        took: how long the runs did; empty if none says.
        facts: where it ran.
    """

    rows: list[Row]
    promises: dict[str, list[Row]]
    warnings: list[Warned]
    took: str
    facts: list[Row]
    columns: Sequence[str]


@dataclass(frozen=True)
class Written:
    """What `write` left behind.

    Attributes:
        page: HTML, with everything in it.
        trust: "ok", or what disturbed the timings.
    """

    page: Path
    trust: str


def write_report(
    directory: Path, name: str, numbers: Iterable[int] | None = None, targets: Sequence[TargetList] | None = None
) -> Written:
    """Make ``report.html`` and ``report.md`` of the runs of a sweep, and print the table.

    Args:
        directory: of the sweep.
        name: title of the report.
        numbers: of its jobs; every run below the directory if None.
        targets: that the runs are held against; those that ship if None.

    Raises:
        ResultError: a result that cannot be read, naming the file.
    """
    results = list(read_sweep(directory, numbers).values())
    found = report_content(results, targets)
    atomic_write(directory / "report.md", markdown(name, found))
    page = directory / "report.html"
    atomic_write(page, _page(name, found, results))
    # Printed at last: whatever becomes of the terminal, the files are there.
    # Without markup: messages of errors have brackets that are none.
    console = Console(width=None if Console().is_terminal else 190, markup=False, emoji=False)
    console.print(terminal_table(found.rows, one_line(name), found.columns))
    for line in unfinished(found.rows):
        console.print(line)
    for warning in found.warnings:
        console.print(warning.summary, style="yellow")
    if found.took:
        console.print(found.took)
    return Written(page, "; ".join(untrusted(results)) or "ok")


def report_content(results: Sequence[RunResult], targets: Sequence[TargetList] | None = None) -> Content:
    """What is to be said of these runs, held against these targets; those that ship if None."""
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
        rows=rows + [_with_values(item, [""] * len(columns)) for item in control_rows(results)],
        promises={title: _promises(lines) for title, lines in judged.items() if any(line.measured for line in lines)},
        warnings=warned(everything),
        took=_took(everything),
        facts=[Row(fact, "") for fact in machine_facts(described)] if described else [],
        columns=(BEFORE[0], *columns.values(), *table_columns()[1:]),
    )


def named(results: Sequence[RunResult]) -> list[RunResult]:
    """The same results, with names that tell them apart where an earlier version recorded none."""
    configs = told_apart([result.config for result in results])
    return [replace(result, config=config) for result, config in zip(results, configs, strict=True)]


def _varied_columns(results: Sequence[RunResult]) -> dict[str, str]:
    """What was swept and stands in no other column: headings by key."""
    return short_names(dict.fromkeys(key for result in results for key in recorded_varied(result.config)))


def _with_values(item: Row, values: Sequence[str]) -> Row:
    name, *others = (one_line(cell) for cell in item.cells)
    return Row((name, *values, *others), item.style)


def read_sweep(directory: Path, numbers: Iterable[int] | None = None) -> dict[int, RunResult]:
    """The results of the jobs of a sweep by their number, in order; attempts that were put aside do not count.

    Args:
        directory: of the sweep.
        numbers: of its jobs; those that left no result are left out. All that are there if None.

    Raises:
        ResultError: a result that cannot be read, naming the file.
    """
    runs = run_directories(directory)
    found = {job: RunResult.load(path) for job, path in runs.items() if numbers is None or job in numbers}
    for job, result in found.items():
        try:
            label(result.config)
        except (KeyError, TypeError, AttributeError) as error:
            path = runs[job] / RESULT_FILE
            raise ResultError(f"{path} is not a result of this version: its config has no {error}") from error
    named_results = named(list(found.values()))
    return dict(zip(found, named_results, strict=True))


def untrusted(results: Sequence[RunResult]) -> list[str]:
    """Which runs' timings were disturbed, and by what."""
    return [f"{label(result.config)}: {result.tags['timing.trust']}" for result in results if not result.trusted]


def warned(results: Sequence[RunResult]) -> list[Warned]:
    """What a reader must know before comparing these runs."""
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
        Warned(_doubt(results), untrusted(results)),
        Warned(
            f"not to be compared with the first: {len(elsewhere)} of {len(results)} runs, made elsewhere",
            elsewhere,
        ),
    ]
    return [warning for warning in found if warning.details]


def _took(results: Sequence[RunResult]) -> str:
    """Of the processes of the runs, one after another."""
    seconds = [result.duration_s for result in results if result.duration_s is not None]
    if not seconds:
        return ""
    some = "" if len(seconds) == len(results) else f" of {len(results)}"
    total = sum(seconds)
    long = f"{total / 60:.1f} minutes" if total >= 60 else f"{total:.0f} seconds"
    return f"{len(seconds)}{some} runs, {long} in all"


def _doubt(results: Sequence[RunResult]) -> str:
    """How many timings must not be trusted, and what helps where it was not the machine alone."""
    timed = [result for result in results if "timing.trust" in result.tags]
    doubted = [result for result in timed if not result.trusted]
    unresolved = sum(result.metrics.get("control_slower_ci_low", math.inf) <= 1 for result in doubted)
    summary = f"not to be trusted: {len(doubted)} of {len(timed)} timings, marked (?)"
    if unresolved:
        summary += f"; {unresolved} of them can't resolve a difference of 5%: ask for more calls ({MORE_CALLS})"
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
    """Why a run did not finish, in a line."""
    assert result.failure is not None, "it did not finish"
    message = result.failure.message.partition("\n")[0]
    return f"{result.failure.kind}: {textwrap.shorten(one_line(message), MAX_REASON, placeholder=' …')}"


def table_columns() -> tuple[str, ...]:
    """Headings of the table of runs: each metric with a column has one, those of other packages too."""
    return (*BEFORE, *(metric.column for metric in _columns()), *AFTER)


def _columns() -> list[Metric]:
    return [metric for metric in METRICS if metric.column]


def _cell(metric: Metric, result: RunResult) -> str:
    """A metric of a run as the table shows it; nothing if it was not measured."""
    if metric.name not in result.metrics:
        return ""
    if metric.is_ratio and f"{metric.name}_ci_low" in result.metrics:
        return format_ratio(result, metric.name)
    doubted = " (?)" * (metric.name == LATENCY and not result.trusted)
    return f"{result.metrics[metric.name]:{metric.digits}}{doubted}"


def table_row(result: RunResult, others: Sequence[RunResult] = ()) -> Row:
    """What the table says of a run; a failure says why instead of its numbers."""
    name, shown = label(result.config), _columns()
    if result.failure is not None:
        empty = [""] * (len(shown) + len(AFTER) - 1)
        return Row((name, result.status, *empty, _reason(result)), result.status.lower())
    verdict = "" if result.verdict is None else _verdict(result.verdict, result.config)
    cells = (name, result.status, *(_cell(metric, result) for metric in shown), validity(result, others), verdict)
    return Row(cells, "" if result.verdict is None else "go" if result.verdict.decision == "GO" else "no-go")


def _verdict(verdict: Verdict, config: Mapping[str, Any]) -> str:
    """The verdict, and how long its trajectory was where that is too short for a GO."""
    duration_ps = config["task"].get("duration_ps", ENOUGH_PS)
    short = f" over {duration_ps:g} ps, too short" if verdict.decision == "GO" and duration_ps < ENOUGH_PS else ""
    return f"{verdict.decision}{short} ({verdict.gate})"


def describe_result(result: RunResult) -> str:
    """What a single run prints at its end: what the table would say, and why not to trust it or why it is a NO-GO."""
    (name, *cells), (_, *columns) = table_row(result).cells, table_columns()
    said = [cell if column in LEFT else f"{column} {cell}" for column, cell in zip(columns, cells, strict=True) if cell]
    lines = ["  ".join([name, *said])]
    if not result.trusted:
        lines.append(f"not to be trusted (?): {result.tags['timing.trust']}")
    if result.verdict is not None:
        decision = result.verdict.decision
        lines += [
            reason if reason.startswith(f"{decision} over ") else f"{decision}: {reason}"
            for reason in result.verdict.reasons
        ]
        lines.append(_moved(result))
    if NOT_WRITTEN in result.tags:
        lines.append(f"not written: {result.tags[NOT_WRITTEN]}")
    if NOT_COMPUTED in result.tags:
        lines.append(f"not computed: {result.tags[NOT_COMPUTED]}")
    return "\n".join(lines)


def _moved(result: RunResult) -> str:
    """The main numbers of a trajectory, of one system, and how long it was, without which a GO says nothing."""
    task = result.config["task"]
    known = [
        f"{metric.brief} {format_number(result.metrics[metric.name])}"
        for metric in METRICS
        if metric.brief and metric.name in result.metrics
    ]
    length = f"{task['duration_ps']:g} ps of {task['replicas']} start{'s' * (task['replicas'] > 1)}"
    # A file that could not be written is not named.
    where = f"; what that is worth: {VERDICT_FILE}" if VERDICT_FILE in result.artifacts else ""
    return f"{', '.join([*known, length])}{where}"


def control_rows(results: Sequence[RunResult]) -> list[Row]:
    """What the stop-watch said of ratios that are known: the worst of all runs."""
    rows = []
    for metric, name in CONTROLS.items():
        found = [result for result in results if metric in result.metrics]
        if found:
            truth = 1.0 if metric == "control_same" else 1.05
            worst = max(found, key=lambda result: abs(result.metrics[metric] - truth))
            said = {
                BEFORE[0]: f"{name}, worst of {len(found)}",
                SPEEDUP: format_ratio(worst, metric, 3),
            }
            rows.append(Row(tuple(said.get(column, "") for column in table_columns()), "control"))
    return rows


def terminal_table(rows: Sequence[Row], title: str, columns: Sequence[str]) -> Table:
    """For a terminal: what the names of all runs begin with stands once, and reasons are left to `unfinished`."""
    colours = {"skipped": "yellow", "failed": "red", "killed": "red", "no-go": "red", "go": "green", "control": "dim"}
    table = Table(title=title, box=box.SIMPLE_HEAD)
    rows = [replace(item, cells=(*item.cells[:-1], "")) if item.style in UNFINISHED else item for item in rows]
    names = [item.cells[0].split(SEPARATOR) for item in rows if item.style != "control"]
    alike = takewhile(lambda words: len(set(words)) == 1, zip(*names, strict=False))
    shared = [words[0] for words in alike] if len(names) > 1 else []
    columns, rows = _filled(columns, rows)
    if shared:
        columns[0] += f" ({SEPARATOR.join([*shared, '…'])})"
    rows = [replace(item, cells=(_without(shared, item.cells[0]), *item.cells[1:])) for item in rows]
    for index, column in enumerate(columns):
        widest = max([MIN_WIDTH, *map(len, column.split()), *(len(item.cells[index]) for item in rows)])
        justify: Literal["left", "right"] = "left" if column.startswith(LEFT) else "right"
        # A heading is no reason for a column to be wider than what stands in it.
        table.add_column(textwrap.fill(column, widest), justify=justify, overflow="fold", min_width=MIN_WIDTH)
    for item in rows:
        table.add_row(*item.cells, style=colours.get(item.style))
    return table


def _without(shared: Sequence[str], name: str) -> str:
    return name.removeprefix(SEPARATOR.join([*shared, ""]))


def unfinished(rows: Sequence[Row]) -> list[str]:
    """Why runs did not finish, a line for each reason."""
    reasons = Counter((item.style.upper(), item.cells[-1]) for item in rows if item.style in UNFINISHED)
    return [f"{count} {status}: {reason}" for (status, reason), count in reasons.items()]


def _filled(columns: Sequence[str], rows: Sequence[Row]) -> tuple[list[str], list[Row]]:
    """The columns in which some row has something to say."""
    kept = [index for index in range(len(columns)) if any(item.cells[index] for item in rows)]
    return [columns[index] for index in kept], [Row(tuple(item.cells[i] for i in kept), item.style) for item in rows]


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
    """A number with as many digits as show that it is not the limit."""
    return f"{value:,.5g}" if format_number(value) == format_number(limit) and value != limit else format_number(value)


def machine_facts(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is worth knowing of where something ran, line by line."""
    known = {key: environment.get(key) for key in ENVIRONMENT}
    packages = environment.get("packages", {}).items()
    known["packages"] = ", ".join(f"{name} {version}" for name, version in packages if version) or None
    known["uncommitted changes"] = "yes" if environment.get("git_diff") else None
    return [(key.replace("_", " "), str(value)) for key, value in known.items() if value is not None]


def markdown(name: str, found: Content, images: Mapping[str, str] = MappingProxyType({})) -> str:
    """The report in Markdown, with the addresses of its figures by title."""
    parts = [f"# {markdown_cell(name)}"]
    parts += [
        "\n".join([f"> {warning.summary}", ">", *(f"> - {markdown_cell(of)}" for of in warning.details)])
        for warning in found.warnings
    ]
    for title, lines in found.promises.items():
        parts += [f"## {title}", markdown_table(PROMISES, [line.cells for line in lines])]
    columns, rows = _filled(found.columns, found.rows)
    parts += ["## Runs", *[found.took] * bool(found.took), markdown_table(columns, [row.cells for row in rows])]
    parts += [f"## {title}\n\n![{title}]({address})" for title, address in images.items()]
    if found.facts:
        parts += ["## Where it ran", markdown_table(("", ""), [fact.cells for fact in found.facts])]
    return "\n\n".join(parts) + "\n"


def _html_table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f'<tr class="{escape(item.style)}">{_html_cells(item)}</tr>' for item in rows)
    return f"<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _html_cells(item: Row) -> str:
    cells, span = item.cells, 1
    if item.style in UNFINISHED:
        # The reason in place of the numbers, where it is seen, and not behind them.
        status = cells.index(item.style.upper(), 1)
        cells, span = (*cells[: status + 1], cells[-1]), len(cells) - status - 1
    *others, last = (escape(cell) for cell in cells)
    return "".join(f"<td>{cell}</td>" for cell in others) + f'<td colspan="{span}">{last}</td>'


def _html_warning(warning: Warned) -> str:
    opened = " open" if len(warning.details) <= MAX_UNFOLDED else ""
    details = "".join(f"<li>{escape(of)}</li>" for of in warning.details)
    return f'<details class="warning"{opened}><summary>{escape(warning.summary)}</summary><ul>{details}</ul></details>'


def _page(name: str, found: Content, results: Sequence[RunResult]) -> str:
    # Imported here: a single run prints its row without matplotlib.
    from mlff_exp.report.figures import figures

    parts = [_html_warning(warning) for warning in found.warnings]
    for title, lines in found.promises.items():
        parts += [f"<h2>{escape(title)}</h2>", _html_table(PROMISES, lines)]
    parts += [
        "<h2>Runs</h2>",
        f"<p>{found.took}</p>" * bool(found.took),
        _html_table(*_filled(found.columns, found.rows)),
    ]
    for title, figure in figures(results).items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        image = base64.b64encode(buffer.getvalue()).decode()
        shown = f'<img alt="{escape(title)}" src="data:image/png;base64,{image}">'
        parts.append(f"<h2>{escape(title)}</h2><div>{shown}</div>")
    if found.facts:
        parts += ["<h2>Where it ran</h2>", _html_table(("", ""), found.facts)]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name)}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 88rem; padding: 0 1rem; }}
div {{ overflow-x: auto; }} img {{ max-width: 100%; height: auto; }}
table {{ border-spacing: 0; font-size: .85rem; }}
th, td {{ padding: .3rem .5rem; border-bottom: 1px solid #ccc; text-align: left; vertical-align: top; }}
@media (min-width: 60rem) {{
  td:first-child {{ min-width: 16rem; }} td:not(:first-child, :nth-last-child(-n+2)) {{ white-space: nowrap; }}
}}
@media (max-width: 40rem) {{
  img {{ min-width: 40rem; }} td:first-child, th:first-child {{ position: sticky; left: 0; background: white; }}
}}
.failed, .killed, .no-go {{ color: #b00020; }} .go {{ color: #1b6e20; }} .skipped {{ color: #8a6d00; }}
.control {{ color: #666; }} .warning {{ background: #fff3cd; margin: .5rem 0; padding: .5rem 1rem; }}
</style></head><body>
<h1>{escape(name)}</h1>
<p>Speedups are ratios of times measured side by side in one process, with 95% bootstrap intervals; the baseline is
eager IEEE FP32 at the same batch size. A speedup is valid if it is fast, accurate (force RMSE within 1%, energy within
0.1% of FP64), stable (its weights, engine and precision passed an NVE run of 10 ps or more of the same system in this
report) and measured by a timing that can be trusted. A promise is held if the unfavourable end of its interval is; a
timing that is not to be trusted can neither hold nor break it.</p>
{chr(10).join(parts)}
</body></html>
"""
