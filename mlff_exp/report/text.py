"""Format numbers, intervals and tables as text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlff_exp.results import RunResult


def format_number(value: float) -> str:
    """Format a number with three digits; from 100 on without decimals."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def format_ratio(result: RunResult, metric: str, digits: int | None = None) -> str:
    """Format a ratio with its interval, ``40.0× [38.0, 42.0]``; empty if it was not measured.

    Args:
        result: of the run.
        metric: the name of the ratio.
        digits: after the point; fewer for larger numbers if None.
    """
    if metric not in result.metrics:
        return ""
    value, low, high = (result.metrics[f"{metric}{end}"] for end in ("", "_ci_low", "_ci_high"))
    if digits is None:
        digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}× [{low:,.{digits}f}, {high:,.{digits}f}]"


def one_line(text: str) -> str:
    """Return a text without line breaks, terminal colours and other invisible characters."""
    text = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text)
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def markdown_cell(text: str) -> str:
    """Escape a text for Markdown: one line, without HTML, links or the end of a cell."""
    text = one_line(text).replace("|", "∣").replace("](", "]\\(")
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a table in Markdown, without a line break at its end."""
    lines = [f"| {' | '.join(map(markdown_cell, cells))} |" for cells in (columns, ["---"] * len(columns), *rows)]
    return "\n".join(lines)
