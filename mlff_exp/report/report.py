"""Write the report of finished runs as HTML and Markdown, and print its table in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mlff_exp.common import atomic_write
from mlff_exp.report.content import named, report_content, untrusted
from mlff_exp.report.html import html_page
from mlff_exp.report.markdown import markdown
from mlff_exp.report.targets import TargetList
from mlff_exp.report.terminal import terminal_table, unfinished
from mlff_exp.report.text import one_line
from mlff_exp.results import (
    RESULT_FILE,
    ResultError,
    RunResult,
    label,
    run_directories,
)


@dataclass(frozen=True)
class Written:
    """The files of a written report.

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
    atomic_write(page, html_page(name, found, results))
    # The table is printed last, so that the files exist even if printing fails.
    # Markup is off, because messages of errors may contain brackets.
    console = Console(width=None if Console().is_terminal else 190, markup=False, emoji=False)
    console.print(terminal_table(found.rows, one_line(name), found.columns))
    for question, answer in found.decision.items():
        console.print(f"{question}: {answer}")
    for line in unfinished(found.rows):
        console.print(line)
    for warning in found.warnings:
        console.print(warning.summary, style="yellow")
    if found.took:
        console.print(found.took)
    return Written(page, "; ".join(untrusted(results)) or "ok")


def read_sweep(directory: Path, numbers: Iterable[int] | None = None) -> dict[int, RunResult]:
    """Read the results of the jobs of a sweep, by number and in order; earlier attempts do not count.

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
