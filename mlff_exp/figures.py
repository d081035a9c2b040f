"""The figures of a sweep, from the results of its runs; each is None where there is nothing to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from mlff_exp.result import RunResult, label
from mlff_exp.text import number

Results = Sequence[RunResult]
MAX_VIOLINS = 24
COLOUR = "#4477aa"


def figures(results: Results) -> dict[str, Figure]:
    """Every figure that these results allow, by title."""
    makers: dict[str, Callable[[Results], Figure | None]] = {
        "Speedup over eager FP32 at the same batch size": speedups,
        "Speedup per structure over single eager FP32": heat_map,
        "Speed against accuracy": pareto,
        "Structures per second by batch size": batch_scaling,
        "Time by size of the system": size_scaling,
        "Distribution of single calls": violins,
        "Peak memory": memory,
        "What the first call costs": first_call,
    }
    found = {title: make(results) for title, make in makers.items()}
    return {title: figure for title, figure in found.items() if figure is not None}


def speedups(results: Results) -> Figure | None:
    """Bars with their intervals."""
    timed = _with(results, "speedup_vs_baseline")
    if not timed:
        return None
    figure, axes = _bars(len(timed))
    values = [result.metrics["speedup_vs_baseline"] for result in timed]
    errors = [
        [
            abs(result.metrics["speedup_vs_baseline"] - result.metrics[f"speedup_vs_baseline_ci_{end}"])
            for result in timed
        ]
        for end in ("low", "high")
    ]
    axes.barh(_marked(timed), values, xerr=errors, color=COLOUR)
    axes.axvline(1, color="black", lw=0.8)
    axes.set_xlabel("times faster")
    return figure


def heat_map(results: Results) -> Figure | None:
    """Per structure, against a single eager call: engine and precision by batch size."""
    timed = _with(results, "speedup_vs_single_eager")
    rows, batches = list(dict.fromkeys(_force_field(result) for result in timed)), sorted(_batch_sizes(timed))
    if len(rows) < 2 or len(batches) < 2:
        return None
    grid = np.full((len(rows), len(batches)), np.nan)
    for result in timed:
        grid[rows.index(_force_field(result)), batches.index(result.config["batch_size"])] = result.metrics[
            "speedup_vs_single_eager"
        ]
    width = 1 + 0.09 * max(len(row) for row in rows) + 0.8 * len(batches)
    figure, axes = plt.subplots(figsize=(width, 1 + 0.5 * len(rows)), layout="constrained")
    axes.imshow(np.log10(grid), cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(batches)), [str(size) for size in batches])
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("batch size")
    middle = np.nanmean(np.log10(grid))
    for (row, column), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "black" if np.log10(value) > middle else "white"
            axes.text(column, row, f"{number(value)}×", ha="center", va="center", color=colour)
    return figure


def pareto(results: Results) -> Figure | None:
    """Throughput against the error that it costs: of arithmetic, and of the model where that was measured."""
    own = [
        (result, result.metrics["force_relative_rmse_vs_fp64_percent"])
        for result in _timed(results, "force_relative_rmse_vs_fp64_percent")
    ]
    errors = {
        _force_field(result): result.metrics["force_rmse_mev_per_ang"]
        for result in _with(results, "force_rmse_mev_per_ang")
    }
    teacher = [
        (result, errors[_force_field(result)])
        for result in _timed(results, "throughput_systems_per_s")
        if _force_field(result) in errors
    ]
    panels = [
        (points, text)
        for points, text in (
            (own, "force RMSE against FP64 of the same weights / %"),
            (teacher, "force RMSE against the teacher / (meV/Å)"),
        )
        if len({error for _, error in points}) > 1
    ]
    if not panels:
        return None
    # One below the other: side by side they are too small for a phone.
    figure, all_axes = plt.subplots(len(panels), figsize=(8, 5 * len(panels)), layout="constrained", squeeze=False)
    for axes, (points, text) in zip(all_axes[:, 0], panels, strict=True):
        for how in dict.fromkeys(_force_field(result) for result, _ in points):
            mine = [(error, result) for result, error in points if _force_field(result) == how]
            axes.scatter(
                [error for error, _ in mine],
                [result.metrics["throughput_systems_per_s"] for _, result in mine],
                label=how,
                s=[15 + 10 * np.log2(result.config["batch_size"]) for _, result in mine],
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain(axes.xaxis)
        _plain(axes.yaxis)
        axes.set_xlabel(text)
        axes.set_ylabel("structures per second (larger dots: larger batches)")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure


def batch_scaling(results: Results) -> Figure | None:
    """Throughput by batch size."""
    return _curves(
        _timed(results, "throughput_systems_per_s"),
        lambda result: float(result.config["batch_size"]),
        "throughput_systems_per_s",
        ("batch size", "structures per second"),
    )


def size_scaling(results: Results) -> Figure | None:
    """Latency by number of atoms in a single system."""
    single = [result for result in _timed(results, "atoms_per_s") if result.config["batch_size"] == 1]
    return _curves(
        single,
        lambda result: round(result.metrics["atoms_per_s"] * result.metrics["latency_median_ms"] / 1000),
        "latency_median_ms",
        ("atoms", "latency / ms"),
    )


def violins(results: Results) -> Figure | None:
    """All samples of every run, over the run's median."""
    timed = [result for result in results if result.timing][:MAX_VIOLINS]
    if not timed:
        return None
    figure, axes = _bars(len(timed))
    samples = [np.asarray(result.timing["engine"].values_ms) for result in timed]
    relative = [values / np.median(values) for values in samples]
    # A few outliers of ten times the median would hide the rest.
    axes.violinplot([values[values < 2] for values in relative], orientation="horizontal", showextrema=False)
    axes.set_yticks(range(1, len(timed) + 1), _marked(timed))
    axes.axvline(1, color="black", lw=0.8)
    axes.set_xlabel("time of a call over the run's median; not those beyond 2")
    return figure


def memory(results: Results) -> Figure | None:
    """Peak memory of each engine alone."""
    return _bar_chart(_with(results, "peak_memory_mib"), "peak_memory_mib", "MiB")


def first_call(results: Results) -> Figure | None:
    """Compiling and capturing, and after how many calls it has paid."""
    compiled = [result for result in _with(results, "first_call_s") if result.config["engine"]["name"] != "eager"]
    return _bar_chart(
        compiled,
        "first_call_s",
        "seconds; in brackets the calls after which it has paid",
        lambda result: (
            f" ({number(result.metrics['break_even_calls'])})" if "break_even_calls" in result.metrics else ""
        ),
    )


def _curves(timed: Results, x: Callable[[RunResult], float], metric: str, labels: tuple[str, str]) -> Figure | None:
    if len({x(result) for result in timed}) < 2:
        return None
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for how in dict.fromkeys(_force_field(result) for result in timed):
        mine = sorted((x(result), result.metrics[metric]) for result in timed if _force_field(result) == how)
        axes.plot(*zip(*mine, strict=True), marker="o", label=how)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain(axes.yaxis)
    measured = sorted({x(result) for result in timed})
    axes.set_xticks(measured, [f"{value:g}" for value in measured])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(which="both", alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def _bar_chart(
    found: Results, metric: str, unit: str, note: Callable[[RunResult], str] = lambda result: ""
) -> Figure | None:
    if not found:
        return None
    figure, axes = _bars(len(found))
    bars = axes.barh(_labels(found), [result.metrics[metric] for result in found], color=COLOUR)
    axes.bar_label(bars, [f"{number(result.metrics[metric])}{note(result)}" for result in found], padding=3)
    axes.margins(x=0.25)  # for the labels beside the bars
    axes.set_xlabel(unit)
    return figure


def _bars(n: int) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.35 * n), layout="constrained")
    axes.invert_yaxis()
    return figure, axes


class _Plain(LogFormatter):
    """600 instead of 6 × 10²; which ticks have numbers is left to matplotlib."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:,.10g}" if super().__call__(x, pos) else ""


def _plain(axis: Axis) -> None:
    axis.set_major_formatter(_Plain())
    axis.set_minor_formatter(_Plain(minor_thresholds=(2, 0.5)))  # up to two decades


def _with(results: Results, metric: str) -> list[RunResult]:
    return [result for result in results if metric in result.metrics]


def _timed(results: Results, metric: str) -> list[RunResult]:
    return [result for result in _with(results, metric) if "latency_median_ms" in result.metrics]


def _batch_sizes(results: Results) -> set[int]:
    return {result.config["batch_size"] for result in results}


def _force_field(result: RunResult) -> str:
    """Model, engine and precision, without task, system and size."""
    return " · ".join(label({**result.config, "task": {"name": "accuracy"}}).split(" · ")[1:])


def _labels(results: Results) -> list[str]:
    """Names without the words that all of them share; numbered where that leaves two alike."""
    words = [label(result.config).split(" · ") for result in results]
    shared = set.intersection(*(set(name) for name in words)) if len(words) > 1 else set()
    names = [" · ".join(word for word in name if word not in shared) or name[-1] for name in words]
    return [f"{name} #{index}" if names.count(name) > 1 else name for index, name in enumerate(names)]


def _marked(results: Results) -> list[str]:
    """The same, with a mark where the timing must not be trusted."""
    return [name + (" (?)" * (not result.trusted)) for name, result in zip(_labels(results), results, strict=True)]
