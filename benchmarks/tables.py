"""The table and the figure of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import LogFormatter, StrMethodFormatter

from benchmarks.comparison import Row
from benchmarks.contenders import CONTENDERS
from mlff_exp.measure import median_interval_ms, median_ms
from mlff_exp.report import machine_facts, markdown_table, subplots

COLUMNS = ("", "package", "weights", "ms per step", "times ours, with 95% interval", "first call / s", "note")


def markdown(rows: Sequence[Row], facts: Mapping[str, Any]) -> str:
    """Return a page with the table, the work and the machine."""
    done = {key: value for key, value in facts.items() if key != "environment"}
    lines = [
        f"# Peers: {facts['system']}",
        "",
        "Steps of velocity Verlet at constant energy, in alternating blocks in one process. A call does "
        f"{facts['steps_per_call']} steps and waits for the end of the last; times are divided by that. "
        f"Ours is `engine={facts['engine']}`; what has our weights runs at {facts['precision']}, and was checked "
        "against eager FP64 of them.",
        "",
        markdown_table(COLUMNS, [_cells(row, facts["steps_per_call"]) for row in rows]),
        "",
        markdown_table(("", ""), [(key.replace("_", " "), str(value)) for key, value in done.items()]),
        "",
        markdown_table(("where", ""), machine_facts(facts["environment"])),
    ]
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], facts: Mapping[str, Any], path: Path) -> None:
    """Plot bars on a logarithmic axis, with intervals of the medians."""
    steps = facts["steps_per_call"]
    measured = [row for row in rows if row.timing is not None]
    figure, axes = subplots(figsize=(8, 1.2 + 0.5 * len(measured)))
    for place, row in enumerate(reversed(measured)):
        assert row.timing is not None
        assert row.ratio is not None
        median, (low, high) = median_ms(row.timing), median_interval_ms(row.timing)
        error = [[max(0.0, median - low) / steps], [max(0.0, high - median) / steps]]
        bar = axes.barh(place, median / steps, xerr=error, color="C0" if row.name == "ours" else "0.7", capsize=3)
        axes.bar_label(bar, [f" {row.ratio.value:.3g}×"])
    axes.set_yticks(range(len(measured)), [CONTENDERS[row.name].what for row in reversed(measured)])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    axes.margins(x=0.15)
    axes.set_xlabel("ms per step")
    where = facts["environment"].get("gpu") or facts["environment"]["cpu"]
    figure.suptitle(f"{facts['system']}, {facts['precision']}, {where}, {facts['date'][:10]}", fontsize=10)
    figure.savefig(path, dpi=120)


def _cells(row: Row, steps_per_call: int) -> tuple[str, ...]:
    contender = CONTENDERS[row.name]
    if row.timing is None or row.ratio is None:
        return (contender.what, "", contender.weights, row.absent or "", "", "", contender.note)
    return (
        contender.what,
        row.package,
        contender.weights,
        f"{median_ms(row.timing) / steps_per_call:.4g}",
        "1" if row.name == "ours" else f"{row.ratio.value:.3g} [{row.ratio.low:.3g}, {row.ratio.high:.3g}]",
        f"{row.timing.first_call_s:.1f}",
        contender.note,
    )
