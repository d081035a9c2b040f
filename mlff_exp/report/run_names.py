"""Choose the runs that a figure shows, and name them by the words in which they differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from mlff_exp.results import (
    SEPARATOR,
    RunResult,
    force_field_words,
    label_words,
    system_name,
    varied_words,
)

Results = Sequence[RunResult]
MAX_NAME = 80  # characters


def runs_with(results: Results, metric: str) -> list[RunResult]:
    """Return the runs that measured a metric."""
    return [result for result in results if metric in result.metrics]


def timed_runs_with(results: Results, metric: str) -> list[RunResult]:
    """Return the runs that measured a metric and timed the engine."""
    return [result for result in runs_with(results, metric) if "latency_median_ms" in result.metrics]


def batch_sizes(results: Results) -> set[int]:
    """Return the batch sizes of runs."""
    return {result.config["batch_size"] for result in results}


def engine_words(result: RunResult) -> list[str]:
    """Return model and engine, without precision."""
    return [word for group, word in force_field_words(result.config).items() if word and group != "precision"]


def force_field_name(result: RunResult) -> str:
    """Return model, engine, precision and other swept values, without task, system and size."""
    return text_of([*filter(None, force_field_words(result.config).values()), *varied_words(result.config)])


def name_by_system(results: Results) -> Callable[[RunResult], str]:
    """Return names of curves and rows, with the system if there is more than one."""
    if len({system_name(result.config) for result in results}) < 2:
        return force_field_name
    return lambda result: text_of([system_name(result.config)]) + SEPARATOR + force_field_name(result)


def force_field_identity(result: RunResult) -> str:
    """Return what identifies a force field; the same for a run that timed it and one that measured its errors."""
    return json.dumps([result.config[group] for group in ("model", "engine", "precision")], sort_keys=True)


def distinct_words(results: Results) -> list[list[str]]:
    """Return names without the words that all of them share; equal names get a number."""
    words = [label_words(result.config) for result in results]
    shared = set.intersection(*(set(name) for name in words)) if len(words) > 1 else set()
    names = [[word for word in name if word not in shared] or name[-1:] for name in words]
    return [[*name[:-1], f"{name[-1]} #{index}"] if names.count(name) > 1 else name for index, name in enumerate(names)]


def text_of(words: Sequence[str]) -> str:
    """Escape a text for matplotlib, where a dollar would begin a formula."""
    text = SEPARATOR.join(words)
    if len(text) > MAX_NAME:
        text = f"{text[: MAX_NAME // 2]} … {text[-MAX_NAME // 2 :]}"
    return text.replace("$", r"\$")


def run_names(results: Results) -> list[str]:
    """Return a name for each run that no other of these runs has."""
    names = [text_of(words) for words in distinct_words(results)]
    return [f"{name} #{index}" if names.count(name) > 1 else name for index, name in enumerate(names)]


def doubt_mark(result: RunResult) -> str:
    """Return the mark of a timing that must not be trusted; empty for a trusted one."""
    return " (?)" * (not result.trusted)


def marked_names(results: Results) -> list[str]:
    """Return names, with a mark if the timing must not be trusted."""
    return [name + doubt_mark(result) for name, result in zip(run_names(results), results, strict=True)]
