"""Format the report and a single run for a terminal."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Literal

from rich import box
from rich.table import Table

from mlff_exp.report.content import AFTER, BEFORE, UNFINISHED, Row, filled_columns, table_columns, table_row
from mlff_exp.report.text import format_number
from mlff_exp.results import (
    FORCES_TAG,
    METRICS,
    NOT_COMPUTED,
    NOT_WRITTEN,
    SEPARATOR,
    STRESS_LEFT_OUT,
    RunResult,
)

MIN_WIDTH = 8  # characters of a column of the terminal's table
LEFT = (*BEFORE, *AFTER)
VERDICT_FILE = "validation_report.txt"


def describe_result(result: RunResult) -> str:
    """Return the lines that a single run prints at its end: its row of the table, and reasons for doubt or a NO-GO."""
    (name, *cells), (_, *columns) = table_row(result).cells, table_columns()
    said = [cell if column in LEFT else f"{column} {cell}" for column, cell in zip(columns, cells, strict=True) if cell]
    lines = ["  ".join([name, *said])]
    if not result.trusted:
        lines.append(f"not to be trusted (?): {result.tags['timing.trust']}")
    if result.non_conservative and FORCES_TAG in result.tags:
        lines.append(result.tags[FORCES_TAG])
    if result.verdict is not None:
        decision = result.verdict.decision
        lines += [f"{decision}: {reason}" for reason in result.verdict.reasons]
        lines.append(_moved(result))
    if NOT_WRITTEN in result.tags:
        lines.append(f"not written: {result.tags[NOT_WRITTEN]}")
    if STRESS_LEFT_OUT in result.tags:
        lines.append(f"no stress: {result.tags[STRESS_LEFT_OUT]}")
    if NOT_COMPUTED in result.tags:
        lines.append(f"not computed: {result.tags[NOT_COMPUTED]}")
    return "\n".join(lines)


def _moved(result: RunResult) -> str:
    """Return the main numbers of a trajectory of one system, with its length, which a GO depends on."""
    task = result.config["task"]
    known = [
        f"{metric.brief} {format_number(result.metrics[metric.name])}"
        for metric in METRICS
        if metric.brief and metric.name in result.metrics
    ]
    if "duration_ps" in task and "replicas" in task:  # a verdict in a file need not be one of a trajectory
        known.append(f"{task['duration_ps']:g} ps of {task['replicas']} start{'s' * (task['replicas'] > 1)}")
    # A file that could not be written is not named.
    where = f"; what that is worth: {VERDICT_FILE}" if VERDICT_FILE in result.artifacts else ""
    return f"{', '.join(known)}{where}"


def terminal_table(rows: Sequence[Row], title: str, columns: Sequence[str]) -> Table:
    """Make the table of a terminal: the common beginning of all names is shown once, and reasons are left out."""
    colours = {
        "skipped": "yellow",
        "failed": "red",
        "killed": "red",
        "no-go": "red",
        "undecided": "yellow",
        "go": "green",
        "control": "dim",
    }
    table = Table(title=title, box=box.SIMPLE_HEAD)
    rows = [replace(item, cells=(*item.cells[:-1], "")) if item.style in UNFINISHED else item for item in rows]
    names = [item.words for item in rows if item.words]
    alike = takewhile(lambda words: len(set(words)) == 1, zip(*names, strict=False))
    shared = [words[0] for words in alike] if len(names) > 1 else []
    columns, rows = filled_columns(columns, rows)
    if shared:
        columns[0] += f" ({SEPARATOR.join([*shared, '…'])})"
        rows = [_without(len(shared), item) if item.words else item for item in rows]
    for index, column in enumerate(columns):
        widest = max([MIN_WIDTH, *map(len, column.split()), *(len(item.cells[index]) for item in rows)])
        justify: Literal["left", "right"] = "left" if column.startswith(LEFT) else "right"
        # A heading does not make a column wider than its cells.
        table.add_column(textwrap.fill(column, widest), justify=justify, overflow="fold", min_width=MIN_WIDTH)
    for item in rows:
        table.add_row(*item.cells, style=colours.get(item.style))
    return table


def _without(n_words: int, item: Row) -> Row:
    """Return the row without the first words of its name."""
    return replace(item, cells=(SEPARATOR.join(item.words[n_words:]), *item.cells[1:]))


def unfinished(rows: Sequence[Row]) -> list[str]:
    """Return a line for each reason why runs did not finish."""
    reasons = Counter((item.style.upper(), item.cells[-1]) for item in rows if item.style in UNFINISHED)
    return [f"{count} {status}: {reason}" for (status, reason), count in reasons.items()]
