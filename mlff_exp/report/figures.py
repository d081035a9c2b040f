"""The figures of a sweep, from the results of its runs; each is None where there is nothing to show."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter

from mlff_exp.config import NATIVE
from mlff_exp.report.drawing import subplots
from mlff_exp.report.text import format_number
from mlff_exp.results import (
    SEPARATOR,
    Criterion,
    RunResult,
    force_field_words,
    format_limits,
    label_words,
    system_name,
    varied_words,
)

Results = Sequence[RunResult]
COLOUR = "#4477aa"
MAX_NAME = 80  # characters
MARKERS = "os^Dv"  # by precision; colours by engine


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
        "How near NVE came to what its gate allows": margins,
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
    named = _by_system(timed)
    rows, batches = list(dict.fromkeys(map(named, timed))), sorted(_batch_sizes(timed))
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
    """Throughput against the error that it costs: of arithmetic, and of the model where that was measured."""
    own = [
        (result, result.metrics["force_relative_rmse_vs_fp64_percent"])
        for result in _timed(results, "force_relative_rmse_vs_fp64_percent")
    ]
    errors = {
        _identity(result): result.metrics["force_rmse_mev_per_ang"]
        for result in _with(results, "force_rmse_mev_per_ang")
    }
    teacher = [
        (result, errors[_identity(result)])
        for result in _timed(results, "throughput_systems_per_s")
        if _identity(result) in errors
    ]
    panels = [
        (points, text)
        for points, text in (
            (own, "force RMSE against FP64 of the same weights / %"),
            (teacher, "force RMSE against the teacher / (meV/Å)"),
        )
        # Less than a percent of the error is no price.
        if max((error for _, error in points), default=0) > 1.01 * min((error for _, error in points), default=0)
    ]
    if not panels:
        return None
    # One below the other: side by side they are too small for a phone.
    figure, all_axes = subplots(len(panels), figsize=(8, 2 + 4.5 * len(panels)), squeeze=False)
    styles = _styles([result for points, _ in panels for result, _ in points])
    for axes, (points, text) in zip(all_axes[:, 0], panels, strict=True):
        for result, error in points:
            throughput, colour, marker = result.metrics["throughput_systems_per_s"], *styles[_force_field(result)]
            size = 15 + 10 * np.log2(result.config["batch_size"])
            axes.scatter(error, throughput, size, color=colour, marker=marker, zorder=3)
            _doubt(axes, result, error, throughput)
        front = _front([(error, result.metrics["throughput_systems_per_s"]) for result, error in points])
        axes.plot(*zip(*front, strict=True), color="black", ls="--", lw=1, drawstyle="steps-post")
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain(axes.xaxis)
        _plain(axes.yaxis)
        axes.set_xlabel(text)
        axes.set_ylabel("structures per second (larger: larger batches)")
        axes.grid(alpha=0.3)
    front_line = Line2D(
        [], [], color="black", ls="--", lw=1, label="Pareto front: nothing is both faster and more exact"
    )
    _legend(figure, styles, "", front_line)
    return figure


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of (error, throughput) that no other beats in both, from the most exact to the fastest."""
    front: list[tuple[float, float]] = []
    for error, throughput in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or throughput > front[-1][1]:
            front.append((error, throughput))
    return front


def batch_scaling(results: Results) -> Figure | None:
    """Throughput by batch size."""
    return _curves(
        _timed(results, "throughput_systems_per_s"),
        lambda result: float(result.config["batch_size"]),
        "throughput_systems_per_s",
        ("batch size", "structures per second"),
        by_system=True,
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
    """All samples of every run, over the run's median; a panel for each engine, one below the other."""
    timed = [result for result in results if result.timing]
    panels: dict[str, list[tuple[str, RunResult]]] = {}
    for words, result in zip(_distinct(timed), timed, strict=True):
        said = _engine_words(result)
        # Without what the panel says, unless nothing would be left.
        rest = [word for word in words if word not in said] or words
        panels.setdefault(_text(said), []).append((_text(rest) + _mark(result), result))
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
    """Peak memory of each engine alone."""
    return _bar_chart(_with(results, "peak_memory_mib"), "peak_memory_mib", "MiB")


def first_call(results: Results) -> Figure | None:
    """Compiling and capturing, and after how many calls it has paid."""
    compiled = [
        result for result in _with(results, "first_call_s") if result.config["engine"]["name"] not in ("eager", NATIVE)
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
    named = _by_system(timed) if by_system else _force_field
    styles = _styles(timed, named)
    for how, (colour, marker) in styles.items():
        mine = sorted((x(result), result.metrics[metric]) for result in timed if named(result) == how)
        axes.plot(*zip(*mine, strict=True), color=colour, marker=marker)
    for result in timed:
        _doubt(axes, result, x(result), result.metrics[metric])
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain(axes.yaxis)
    measured = sorted({x(result) for result in timed})
    axes.set_xticks(measured, [f"{value:g}" for value in measured])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(which="both", alpha=0.3)
    _legend(figure, styles, "-")
    return figure


def _bar_chart(
    found: Results, metric: str, unit: str, note: Callable[[RunResult], str] = lambda result: ""
) -> Figure | None:
    if not found:
        return None
    figure, axes = _bars(len(found))
    bars = axes.barh(_labels(found), [result.metrics[metric] for result in found], color=COLOUR)
    axes.bar_label(bars, [f"{format_number(result.metrics[metric])}{note(result)}" for result in found], padding=3)
    axes.margins(x=0.25)  # for the labels beside the bars
    axes.set_xlabel(unit)
    return figure


def margins(results: Results) -> Figure | None:
    """Each criterion of each NVE run: its value, coloured by how much of what is allowed it uses."""
    judged = [result for result in results if result.verdict is not None and result.verdict.criteria]
    verdicts = [result.verdict for result in judged if result.verdict is not None]
    by_run = [{f"{of.metric}   {format_limits(of.min, of.max)}": of for of in verdict.criteria} for verdict in verdicts]
    names = [f"{name}   {verdict.decision}" for name, verdict in zip(_labels(judged), verdicts, strict=True)]
    limits = list(dict.fromkeys(limit for run in by_run for limit in run))
    if not limits:
        return None
    used = np.full((len(limits), len(names)), np.nan)
    shown = np.full(used.shape, "", dtype=object)
    for x, run in enumerate(by_run):
        for limit, criterion in run.items():
            used[limits.index(limit), x] = _used(criterion)
            value = "not measured" if criterion.value is None else format_number(criterion.value)
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
    """The part of what it may be off that a value takes: up to 1 within its limits, 2 at the most."""
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


def _bars(n: int) -> tuple[Figure, Axes]:
    """Axes for so many, the first at the top."""
    figure, axes = subplots(figsize=(9, 1.2 + 0.35 * n))
    axes.set_ylim(n - 0.4, -0.6)
    return figure, axes


def _styles(results: Results, named: Callable[[RunResult], str] | None = None) -> dict[str, tuple[str, str]]:
    """Colour and marker by name: the same engine in one colour, the same of all else with one marker."""
    named = named or _force_field
    engines = list(dict.fromkeys(_text(_engine_words(result)) for result in results))
    others = list(dict.fromkeys(_beside_engine(result, named) for result in results))
    return {
        named(result): (
            f"C{engines.index(_text(_engine_words(result))) % 10}",
            MARKERS[others.index(_beside_engine(result, named)) % len(MARKERS)],
        )
        for result in results
    }


def _beside_engine(result: RunResult, named: Callable[[RunResult], str]) -> str:
    return named(result).replace(_text(_engine_words(result)), "")


def _legend(figure: Figure, styles: Mapping[str, tuple[str, str]], line: str, *more: Line2D) -> None:
    """Below the axes, where it covers nothing."""
    handles = [
        Line2D([], [], color=colour, marker=marker, ls=line, label=how) for how, (colour, marker) in styles.items()
    ]
    figure.legend(handles=[*handles, *more], loc="outside lower center", ncols=2, fontsize="small")


def _doubt(axes: Axes, result: RunResult, x: float, y: float) -> None:
    """The mark of a timing that must not be trusted."""
    if not result.trusted:
        axes.annotate("(?)", (x, y), xytext=(4, -9), textcoords="offset points", fontsize="small")


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


def _engine_words(result: RunResult) -> list[str]:
    """Model and engine, without precision."""
    return [word for group, word in force_field_words(result.config).items() if word and group != "precision"]


def _force_field(result: RunResult) -> str:
    """Model, engine, precision and what else was swept, without task, system and size."""
    return _text([*filter(None, force_field_words(result.config).values()), *varied_words(result.config)])


def _by_system(results: Results) -> Callable[[RunResult], str]:
    """Names of curves and rows, with the system where there is more than one."""
    if len({system_name(result.config) for result in results}) < 2:
        return _force_field
    return lambda result: _text([system_name(result.config)]) + SEPARATOR + _force_field(result)


def _identity(result: RunResult) -> str:
    """Of a force field: the same for a run that timed it and one that measured its errors."""
    return json.dumps([result.config[group] for group in ("model", "engine", "precision")], sort_keys=True)


def _distinct(results: Results) -> list[list[str]]:
    """Words of names without those that all of them share; numbered where that leaves two alike."""
    words = [label_words(result.config) for result in results]
    shared = set.intersection(*(set(name) for name in words)) if len(words) > 1 else set()
    names = [[word for word in name if word not in shared] or name[-1:] for name in words]
    return [[*name[:-1], f"{name[-1]} #{index}"] if names.count(name) > 1 else name for index, name in enumerate(names)]


def _text(words: Sequence[str]) -> str:
    """Words as matplotlib shows them; a dollar would begin a formula."""
    text = SEPARATOR.join(words)
    if len(text) > MAX_NAME:
        text = f"{text[: MAX_NAME // 2]} … {text[-MAX_NAME // 2 :]}"
    return text.replace("$", r"\$")


def _labels(results: Results) -> list[str]:
    names = [_text(words) for words in _distinct(results)]
    return [f"{name} #{index}" if names.count(name) > 1 else name for index, name in enumerate(names)]


def _mark(result: RunResult) -> str:
    """That the timing must not be trusted."""
    return " (?)" * (not result.trusted)


def _marked(results: Results) -> list[str]:
    """Names, with a mark where the timing must not be trusted."""
    return [name + _mark(result) for name, result in zip(_labels(results), results, strict=True)]
