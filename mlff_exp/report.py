"""From finished runs to a table, a figure and one self-contained page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mlff_exp.result import RESULT_FILE, RunResult, label

COLUMNS = (
    "run",
    "status",
    "latency / ms",
    "speedup vs eager FP32",
    "per structure vs single eager",
    "force error vs FP64 / %",
    "force MAE vs teacher / (meV/Å)",
    "verdict",
)


@dataclass(frozen=True)
class Row:
    """One run in the table."""

    result: RunResult
    cells: tuple[str, ...]


def write(directory: Path, name: str) -> Path:
    """Make ``report.html`` and ``report.md`` of every run below a sweep's directory, and print the table.

    Returns:
        The path of the page.
    """
    rows = [row(result) for result in read(directory)]
    console = Console(width=None if Console().is_terminal else 150)
    console.print(terminal_table(rows, name))
    (directory / "report.md").write_text(f"# {name}\n\n{markdown_table(rows)}\n")
    page = directory / "report.html"
    page.write_text(_page(name, rows))
    return page


def read(directory: Path) -> list[RunResult]:
    """The results of the jobs of a sweep, in their order."""
    paths = directory.glob(f"*/{RESULT_FILE}")
    return [RunResult.load(path.parent) for path in sorted(paths, key=lambda path: _job_number(path.parent))]


def row(result: RunResult) -> Row:
    """What the table says of a run; a failure says why instead of its numbers."""
    metrics = result.metrics
    name = label(result.config)
    if result.failure is not None:
        reason = f"{result.failure.kind}: {result.failure.message.splitlines()[0] if result.failure.message else ''}"
        return Row(result, (name, result.status, "", "", "", "", "", reason[:120]))
    latency = f"{metrics['latency_median_ms']:.3f}" if "latency_median_ms" in metrics else ""
    error = metrics.get("force_relative_rmse_vs_fp64_percent")
    teacher = metrics.get("force_mae_mev_per_ang")
    verdict = "" if result.verdict is None else f"{result.verdict.decision} ({result.verdict.gate})"
    cells = (
        name,
        result.status,
        latency,
        _with_interval(result, "speedup_vs_baseline"),
        _with_interval(result, "speedup_vs_single_eager"),
        "" if error is None else f"{error:.2g}",
        "" if teacher is None else f"{teacher:.1f}",
        verdict,
    )
    return Row(result, cells)


def terminal_table(rows: Sequence[Row], title: str) -> Table:
    """For a terminal."""
    table = Table(title=title)
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if index in (0, 1, 7) else "right", overflow="fold")
    for item in rows:
        colour = {"FINISHED": None, "SKIPPED": "yellow"}.get(item.result.status, "red")
        if item.result.verdict is not None:
            colour = "green" if item.result.verdict.decision == "GO" else "red"
        table.add_row(*item.cells, style=colour)
    return table


def markdown_table(rows: Sequence[Row]) -> str:
    """The same as Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(cell.replace('|', '∣') for cell in item.cells)} |" for item in rows]
    return "\n".join(lines)


def _with_interval(result: RunResult, metric: str) -> str:
    if metric not in result.metrics:
        return ""
    low, high = (result.metrics[f"{metric}_ci_{end}"] for end in ("low", "high"))
    return f"{result.metrics[metric]:.2f}× [{low:.2f}, {high:.2f}]"


def _job_number(directory: Path) -> tuple[int, str]:
    return (int(directory.name), "") if directory.name.isdigit() else (10**9, directory.name)


def _page(name: str, rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in COLUMNS)
    body = "".join(
        f'<tr class="{escape(item.result.status.lower())}">'
        + "".join(f"<td>{escape(cell)}</td>" for cell in item.cells)
        + "</tr>"
        for item in rows
    )
    figure = _speedup_figure(rows)
    image = "" if figure is None else f'<img alt="speedups" src="data:image/png;base64,{figure}">'
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name)}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }}
div {{ overflow-x: auto; }} img {{ max-width: 100%; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .3rem .7rem; border-bottom: 1px solid #ccc; text-align: left; }}
.failed, .killed {{ color: #b00020; }} .skipped {{ color: #8a6d00; }}
</style></head><body>
<h1>{escape(name)}</h1>
<p>Speedups are ratios of medians measured side by side in one process, with 95% bootstrap intervals; the baseline is
eager FP32 at the same batch size.</p>
<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>
{image}
</body></html>
"""


def _speedup_figure(rows: Sequence[Row]) -> str | None:
    """Bars of the speedups with their intervals, as base64 PNG; None if nothing was timed."""
    timed = [item.result for item in rows if "speedup_vs_baseline" in item.result.metrics]
    if not timed:
        return None
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 1 + 0.4 * len(timed)), layout="constrained")
    values = [result.metrics["speedup_vs_baseline"] for result in timed]
    errors = [
        [
            abs(result.metrics["speedup_vs_baseline"] - result.metrics[f"speedup_vs_baseline_ci_{end}"])
            for result in timed
        ]
        for end in ("low", "high")
    ]
    axes.barh([label(result.config) for result in timed], values, xerr=errors, color="#4477aa")
    axes.axvline(1, color="black", lw=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("speedup vs eager FP32 at the same batch size")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()
