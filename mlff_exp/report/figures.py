"""Draw the figures of a sweep from the results of its runs. A figure without data is None."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mlff_exp.config import NATIVE
from mlff_exp.engines import REFERENCE_ENGINE
from mlff_exp.report.drawing import subplots
from mlff_exp.report.run_names import (
    Results,
    batch_sizes,
    distinct_words,
    doubt_mark,
    engine_words,
    force_field_identity,
    force_field_name,
    marked_names,
    name_by_system,
    run_names,
    runs_with,
    text_of,
    timed_runs_with,
)
from mlff_exp.report.styles import COLOUR, bar_axes, legend_below, line_styles, mark_doubt, plain_numbers
from mlff_exp.report.text import format_number
from mlff_exp.results import (
    Criterion,
    RunResult,
    format_limits,
)


def figures(results: Results) -> dict[str, Figure]:
    """Draw every figure for which these results have data, by title."""
    makers: dict[str, Callable[[Results], Figure | None]] = {
        "Speedup over eager FP32 at the same batch size": speedups,
        "Speedup per structure over single eager FP32": heat_map,
        "Speed against accuracy": pareto,
        "Structures per second by batch size": batch_scaling,
        "Time by size of the system": size_scaling,
        "Distribution of single calls": violins,
        "Peak memory": memory,
        "What the first call costs": first_call,
        "How near NVE came to what its gate allows": margins,
    }
    found = {title: make(results) for title, make in makers.items()}
    return {title: figure for title, figure in found.items() if figure is not None}


def speedups(results: Results) -> Figure | None:
    """Draw bars with their intervals."""
    timed = runs_with(results, "speedup_vs_baseline")
    if not timed:
        return None
    figure, axes = bar_axes(len(timed))
    values = [result.metrics["speedup_vs_baseline"] for result in timed]
    errors = [
        [
            abs(result.metrics["speedup_vs_baseline"] - result.metrics[f"speedup_vs_baseline_ci_{end}"])
            for result in timed
        ]
        for end in ("low", "high")
    ]
    axes.barh(marked_names(timed), values, xerr=errors, color=COLOUR)
    axes.axvline(1, color="black", lw=0.8)
    axes.set_xlabel("times faster")
    return figure


def heat_map(results: Results) -> Figure | None:
    """Draw speedups per structure over a single eager call: engine and precision by batch size."""
    timed = runs_with(results, "speedup_vs_single_eager")
    named = name_by_system(timed)
    rows, batches = list(dict.fromkeys(map(named, timed))), sorted(batch_sizes(timed))
    if len(rows) < 2 or len(batches) < 2:
        return None
    grid, doubted = np.full((len(rows), len(batches)), np.nan), set()
    for result in timed:
        cell = rows.index(named(result)), batches.index(result.config["batch_size"])
        grid[cell] = result.metrics["speedup_vs_single_eager"]
        if not result.trusted:
            doubted.add(cell)
    width = 1 + 0.09 * max(len(row) for row in rows) + 0.8 * len(batches)
    figure, axes = subplots(figsize=(width, 1 + 0.5 * len(rows)))
    axes.imshow(np.log10(grid), cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(batches)), [str(size) for size in batches])
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("batch size")
    middle = np.nanmean(np.log10(grid))
    for (row, column), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "black" if np.log10(value) > middle else "white"
            doubt = "\n(?)" if (row, column) in doubted else ""
            axes.text(column, row, f"{format_number(value)}×{doubt}", ha="center", va="center", color=colour)
    return figure


def pareto(results: Results) -> Figure | None:
    """Draw throughput against the error of arithmetic, and against the error of the model if it was measured."""
    own = [
        (result, result.metrics["force_relative_rmse_vs_fp64_percent"])
        for result in timed_runs_with(results, "force_relative_rmse_vs_fp64_percent")
    ]
    errors = {
        force_field_identity(result): result.metrics["force_rmse_mev_per_ang"]
        for result in runs_with(results, "force_rmse_mev_per_ang")
    }
    teacher = [
        (result, errors[force_field_identity(result)])
        for result in timed_runs_with(results, "throughput_systems_per_s")
        if force_field_identity(result) in errors
    ]
    panels = [
        (points, text)
        for points, text in (
            (own, "force RMSE against FP64 of the same weights / %"),
            (teacher, "force RMSE against the teacher / (meV/Å)"),
        )
        # A difference below one percent of the error does not count.
        if max((error for _, error in points), default=0) > 1.01 * min((error for _, error in points), default=0)
    ]
    if not panels:
        return None
    # One below the other: side by side they are too small for a phone.
    figure, all_axes = subplots(len(panels), figsize=(8, 2 + 4.5 * len(panels)), squeeze=False)
    styles = line_styles([result for points, _ in panels for result, _ in points])
    for axes, (points, text) in zip(all_axes[:, 0], panels, strict=True):
        for result, error in points:
            throughput, colour, marker = result.metrics["throughput_systems_per_s"], *styles[force_field_name(result)]
            size = 15 + 10 * np.log2(result.config["batch_size"])
            axes.scatter(error, throughput, size, color=colour, marker=marker, zorder=3)
            mark_doubt(axes, result, error, throughput)
        front = _front([(error, result.metrics["throughput_systems_per_s"]) for result, error in points])
        axes.plot(*zip(*front, strict=True), color="black", ls="--", lw=1, drawstyle="steps-post")
        axes.set_xscale("log")
        axes.set_yscale("log")
        plain_numbers(axes.xaxis)
        plain_numbers(axes.yaxis)
        axes.set_xlabel(text)
        axes.set_ylabel("structures per second (larger: larger batches)")
        axes.grid(alpha=0.3)
    front_line = Line2D(
        [], [], color="black", ls="--", lw=1, label="Pareto front: nothing is both faster and more exact"
    )
    legend_below(figure, styles, "", front_line)
    return figure


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the Pareto front of (error, throughput), from the most accurate to the fastest."""
    front: list[tuple[float, float]] = []
    for error, throughput in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or throughput > front[-1][1]:
            front.append((error, throughput))
    return front


def batch_scaling(results: Results) -> Figure | None:
    """Draw throughput by batch size."""
    return _curves(
        timed_runs_with(results, "throughput_systems_per_s"),
        lambda result: float(result.config["batch_size"]),
        "throughput_systems_per_s",
        ("batch size", "structures per second"),
        by_system=True,
    )


def size_scaling(results: Results) -> Figure | None:
    """Draw latency by number of atoms in a single system."""
    single = [result for result in timed_runs_with(results, "atoms_per_s") if result.config["batch_size"] == 1]
    return _curves(
        single,
        lambda result: round(result.metrics["atoms_per_s"] * result.metrics["latency_median_ms"] / 1000),
        "latency_median_ms",
        ("atoms", "latency / ms"),
    )


def violins(results: Results) -> Figure | None:
    """Draw all samples of every run, divided by the run's median, with a panel for each engine."""
    timed = [result for result in results if result.timing]
    panels: dict[str, list[tuple[str, RunResult]]] = {}
    for words, result in zip(distinct_words(timed), timed, strict=True):
        said = engine_words(result)
        # The words of the panel are left out of the names, unless nothing would be left.
        rest = [word for word in words if word not in said] or words
        panels.setdefault(text_of(said), []).append((text_of(rest) + doubt_mark(result), result))
    if not panels:
        return None
    rows = [len(runs) for runs in panels.values()]
    figure, all_axes = subplots(
        len(panels), figsize=(8, 0.5 + 0.7 * len(panels) + 0.28 * sum(rows)), height_ratios=rows, sharex=True,
        squeeze=False,
    )  # fmt: skip
    for axes, (engine, runs) in zip(all_axes[:, 0], panels.items(), strict=True):
        samples = [np.asarray(result.timing["engine"].values_ms) for _, result in runs]
        relative = [values / np.median(values) for values in samples]
        # A few outliers of ten times the median would hide the rest.
        shown = [values[values < 2] for values in relative]
        axes.violinplot(shown, orientation="horizontal", showextrema=False, widths=0.8)
        axes.set_yticks(range(1, len(runs) + 1), [name for name, _ in runs])
        axes.set_ylim(len(runs) + 0.6, 0.4)
        axes.axvline(1, color="black", lw=0.8)
        axes.tick_params(labelbottom=True)
        axes.set_title(engine, fontsize="medium", loc="left")
    axes.set_xlabel("time of a call over the run's median; not those beyond 2")
    return figure


def memory(results: Results) -> Figure | None:
    """Draw the peak memory of each engine alone."""
    return _bar_chart(runs_with(results, "peak_memory_mib"), "peak_memory_mib", "MiB")


def first_call(results: Results) -> Figure | None:
    """Draw the time of the first call, and the number of calls after which it has paid."""
    compiled = [
        result
        for result in runs_with(results, "first_call_s")
        if result.config["engine"]["name"] not in (REFERENCE_ENGINE, NATIVE)
    ]
    cold = [bool(result.config.get("cold_compile")) for result in compiled]
    warm = "the compiler's cache may have been warm"
    title = warm if not any(cold) else "from a cold cache" if all(cold) else f"cold: from a cold cache; others: {warm}"

    def note(result: RunResult) -> str:
        words = [format_number(result.metrics["break_even_calls"])] if "break_even_calls" in result.metrics else []
        words += ["cold"] * (result.config.get("cold_compile", False) and not all(cold))
        return f" ({', '.join(words)})" if words else ""

    figure = _bar_chart(compiled, "first_call_s", "seconds; in brackets the calls after which it has paid", note)
    if figure is not None:
        figure.axes[0].set_title(title, fontsize="medium")
    return figure


def _curves(
    timed: Results,
    x: Callable[[RunResult], float],
    metric: str,
    labels: tuple[str, str],
    *,
    by_system: bool = False,
) -> Figure | None:
    if len({x(result) for result in timed}) < 2:
        return None
    figure, axes = subplots(figsize=(8, 6.5))
    named = name_by_system(timed) if by_system else force_field_name
    styles = line_styles(timed, named)
    for how, (colour, marker) in styles.items():
        mine = sorted((x(result), result.metrics[metric]) for result in timed if named(result) == how)
        axes.plot(*zip(*mine, strict=True), color=colour, marker=marker)
    for result in timed:
        mark_doubt(axes, result, x(result), result.metrics[metric])
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)
    measured = sorted({x(result) for result in timed})
    axes.set_xticks(measured, [f"{value:g}" for value in measured])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(which="both", alpha=0.3)
    legend_below(figure, styles, "-")
    return figure


def _bar_chart(
    found: Results, metric: str, unit: str, note: Callable[[RunResult], str] = lambda result: ""
) -> Figure | None:
    if not found:
        return None
    figure, axes = bar_axes(len(found))
    bars = axes.barh(run_names(found), [result.metrics[metric] for result in found], color=COLOUR)
    axes.bar_label(bars, [f"{format_number(result.metrics[metric])}{note(result)}" for result in found], padding=3)
    axes.margins(x=0.25)  # for the labels next to the bars
    axes.set_xlabel(unit)
    return figure


def margins(results: Results) -> Figure | None:
    """Draw each criterion of each NVE run: its value, coloured by the part of its limit that it uses."""
    judged = [result for result in results if result.verdict is not None and result.verdict.criteria]
    verdicts = [result.verdict for result in judged if result.verdict is not None]
    by_run = [{f"{of.metric}   {format_limits(of.min, of.max)}": of for of in verdict.criteria} for verdict in verdicts]
    names = [f"{name}   {verdict.decision}" for name, verdict in zip(run_names(judged), verdicts, strict=True)]
    limits = list(dict.fromkeys(limit for run in by_run for limit in run))
    if not limits:
        return None
    used = np.full((len(limits), len(names)), np.nan)
    shown = np.full(used.shape, "", dtype=object)
    for x, run in enumerate(by_run):
        for limit, criterion in run.items():
            used[limits.index(limit), x] = _used(criterion)
            absent = "not judged" if criterion.inapplicable else "not measured"
            value = absent if criterion.value is None else format_number(criterion.value)
            shown[limits.index(limit), x] = value + " ✗" * (criterion.held is False) + " ?" * criterion.undecided
    down, across = limits, names
    if len(across) > len(down):  # the longer of the two goes down the page
        down, across, used, shown = across, down, used.T, shown.T
    wide = 1 + 0.09 * max(len(name) for name in down) + 1.3 * len(across)
    figure, axes = subplots(figsize=(wide, 2 + 0.35 * len(down)))
    for (y, x), text in np.ndenumerate(shown):
        axes.text(x, y, text, ha="center", va="center", weight="bold" if text.endswith("✗") else "normal")
    axes.imshow(used, cmap="RdYlGn_r", vmin=0, vmax=2, aspect="auto", alpha=0.7)
    axes.set_yticks(range(len(down)), down)
    axes.set_xticks(range(len(across)), across)
    if len(across) > 1:
        for text in axes.get_xticklabels():
            text.set(rotation=30, ha="right", rotation_mode="anchor")
    return figure


def _used(criterion: Criterion) -> float:
    """Return the part of its limit that a value uses: up to 1 within the limits, at most 2."""
    value, low, high = criterion.value, criterion.min, criterion.max
    if value is None:
        return np.nan
    part = 0.0
    if low is not None and high is not None:
        part = abs(value - (low + high) / 2) / ((high - low) / 2)
    elif high is not None:
        part = value / high
    elif low is not None:
        part = low / value if value > 0 else 2.0
    return min(part, 2.0)
