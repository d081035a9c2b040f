"""Write the report of finished runs as HTML and Markdown, and print its table in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from mlff_exp.common import atomic_write
from mlff_exp.report.content import Warned, named, report_content, untrusted
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
        left_out: a line for each result that can't be read.
    """

    page: Path
    trust: str
    left_out: Sequence[str] = ()


def write_report(
    directory: Path, name: str, numbers: Iterable[int] | None = None, targets: Sequence[TargetList] | None = None
) -> Written:
    """Make ``report.html`` and ``report.md`` of the runs of a sweep, and print the table.

    A result that can't be read is left out, and the report says so.

    Args:
        directory: of the sweep.
        name: title of the report.
        numbers: of its jobs; every run below the directory if None.
        targets: that the runs are held against; those that ship if None.

    Raises:
        ResultError: no result can be read; the message names the first file.
    """
    results, left_out = _readable(directory, numbers)
    found = report_content(results, targets)
    if left_out:
        warning = Warned(
            f"left out, because they can't be read: {len(left_out)} of {len(left_out) + len(results)} results", left_out
        )
        found = replace(found, warnings=[warning, *found.warnings])
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
    return Written(page, "; ".join(untrusted(results)) or "ok", left_out)


def _readable(directory: Path, numbers: Iterable[int] | None) -> tuple[list[RunResult], list[str]]:
    """Return the results of a sweep in order, and a line for each that can't be read."""
    loaded, left_out = [], []
    runs = _directories(directory, numbers)
    for path in runs.values():
        try:
            loaded.append(_load(path))
        except ResultError as error:
            left_out.append(one_line(str(error)))
    if left_out and not loaded:
        raise ResultError(left_out[0])
    return named(loaded), left_out


def read_sweep(directory: Path, numbers: Iterable[int] | None = None) -> dict[int, RunResult]:
    """Read the results of the jobs of a sweep, by number and in order; earlier attempts do not count.

    Args:
        directory: of the sweep.
        numbers: of its jobs; those that left no result are left out. All that are there if None.

    Raises:
        ResultError: a result can't be read. The message names the file.
    """
    found = {job: _load(path) for job, path in _directories(directory, numbers).items()}
    return dict(zip(found, named(list(found.values())), strict=True))


def _directories(directory: Path, numbers: Iterable[int] | None) -> dict[int, Path]:
    return {job: path for job, path in run_directories(directory).items() if numbers is None or job in numbers}


def _load(directory: Path) -> RunResult:
    result = RunResult.load(directory)
    try:
        label(result.config)
    except (KeyError, TypeError, AttributeError) as error:
        path = directory / RESULT_FILE
        raise ResultError(f"{path} is not a result of this version: its config has no {error}") from error
    return result
