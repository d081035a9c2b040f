"""Colours, markers, legends and numbers of figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter

from mlff_exp.report.drawing import subplots
from mlff_exp.report.run_names import (
    Results,
    engine_words,
    force_field_name,
    text_of,
)
from mlff_exp.results import (
    RunResult,
)

MARKERS = "os^Dv"  # by precision; colours by engine
COLOUR = "#4477aa"


def bar_axes(n: int) -> tuple[Figure, Axes]:
    """Make a figure with axes for ``n`` bars, the first at the top."""
    figure, axes = subplots(figsize=(9, 1.2 + 0.35 * n))
    axes.set_ylim(n - 0.4, -0.6)
    return figure, axes


def line_styles(results: Results, named: Callable[[RunResult], str] | None = None) -> dict[str, tuple[str, str]]:
    """Return colour and marker by name: one colour for an engine, one marker for the other words."""
    named = named or force_field_name
    engines = list(dict.fromkeys(text_of(engine_words(result)) for result in results))
    others = list(dict.fromkeys(_beside_engine(result, named) for result in results))
    return {
        named(result): (
            f"C{engines.index(text_of(engine_words(result))) % 10}",
            MARKERS[others.index(_beside_engine(result, named)) % len(MARKERS)],
        )
        for result in results
    }


def _beside_engine(result: RunResult, named: Callable[[RunResult], str]) -> str:
    return named(result).replace(text_of(engine_words(result)), "")


def legend_below(figure: Figure, styles: Mapping[str, tuple[str, str]], line: str, *more: Line2D) -> None:
    """Put a legend below the axes, where it covers nothing."""
    handles = [
        Line2D([], [], color=colour, marker=marker, ls=line, label=how) for how, (colour, marker) in styles.items()
    ]
    figure.legend(handles=[*handles, *more], loc="outside lower center", ncols=2, fontsize="small")


def mark_doubt(axes: Axes, result: RunResult, x: float, y: float) -> None:
    """Mark a point whose timing must not be trusted."""
    if not result.trusted:
        axes.annotate("(?)", (x, y), xytext=(4, -9), textcoords="offset points", fontsize="small")


class _Plain(LogFormatter):
    """A formatter that writes 600 instead of 6 × 10²; matplotlib chooses the ticks."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:,.10g}" if super().__call__(x, pos) else ""


def plain_numbers(axis: Axis) -> None:
    """Write the numbers of a logarithmic axis without powers of ten."""
    axis.set_major_formatter(_Plain())
    axis.set_minor_formatter(_Plain(minor_thresholds=(2, 0.5)))  # up to two decades
