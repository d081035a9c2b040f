"""Write a report to keep in a repository: text, small figures and tables, without paths of a machine."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import Any

from mlff_exp.common import refuse_irregular
from mlff_exp.report.content import named, report_content
from mlff_exp.report.figures import figures
from mlff_exp.report.markdown import markdown
from mlff_exp.report.targets import TargetList
from mlff_exp.report.text import format_ratio, markdown_table
from mlff_exp.report.validity import force_field, least_accurate, stability, systems_of
from mlff_exp.results import (
    SEPARATOR,
    ResultError,
    RunKey,
    RunResult,
    force_field_words,
    label,
    label_parts,
    recorded_varied,
    system_name,
    varied_words,
)

DPI = 80
# The columns of the table that identify a run, before its metrics.
DESCRIBED = ("run", "status", "verdict", "timing.trust", "checkpoint.sha256")
RUN_KEY = tuple(item.name for item in fields(RunKey))  # and what was swept
HEADLINE = [
    "engine · precision", "a call (batch)", "against eager FP32", "structures/s (best batch)",
    "per structure, against single eager", "force error against FP64", "NVE",
]  # fmt: skip
MAX_KERNELS = 10  # of a run
# Facts that are of no use to others, or that belong to one run only.
OMITTED = ("hostname", "cuda_visible_devices", "git_diff", "gpu_samples", "cores_used_by_others")


def publish(
    directory: Path,
    found: Mapping[int, RunResult],
    name: str,
    target: Path,
    targets: Sequence[TargetList] | None = None,
) -> Path:
    """Write ``README.md``, its figures and its tables into a directory; returns the path of ``README.md``.

    Args:
        directory: of the sweep.
        found: what `read` found in it.
        name: title of the report.
        target: made if it is not there.
        targets: that the runs are held against; those that ship if None.

    Raises:
        ResultError: a file of a run can't be read.
    """
    results = list(found.values())
    target.mkdir(parents=True, exist_ok=True)
    images = {}
    for title, figure in figures(results).items():
        images[title] = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") + ".png"
        figure.savefig(target / images[title], dpi=DPI)
    _write_table(results, target / "runs.csv")
    _write_kernels(directory, found, target / "kernels.csv")
    if any("speedup_vs_single_eager" in result.metrics for result in results):
        (target / "headline.md").write_text(headline(results), encoding="utf-8")
    (target / "environment.json").write_text(json.dumps(_public(results), indent=1) + "\n", encoding="utf-8")
    page = target / "README.md"
    page.write_text(markdown(name, report_content(results, targets), images), encoding="utf-8")
    return page


def headline(results: Sequence[RunResult]) -> str:
    """Make a Markdown table with a line for each system, engine and precision: its first and its best batch."""
    results = [result for result in named(results) if "model" in result.config]
    timed = [result for result in results if "speedup_vs_single_eager" in result.metrics]
    systems = {system_name(result.config) for result in timed}
    lines = []

    def line_of(result: RunResult) -> tuple[Any, ...]:
        return label_parts(result.config)["system"], force_field(result), *varied_words(result.config)

    for one in dict.fromkeys(map(line_of, timed)):
        mine, how = [r for r in timed if line_of(r) == one], one[1]
        first = min(mine, key=lambda result: result.config["batch_size"])
        best = max(mine, key=lambda result: result.metrics["throughput_systems_per_s"])
        evaluated = [r for r in results if not systems_of(r) and force_field(r) == how]
        error = least_accurate("force_relative_rmse_vs_fp64_percent", [*mine, *evaluated])
        assert error is not None, "measured with every timing"
        lines.append(
            [
                SEPARATOR.join(
                    [
                        *[one[0]] * (len(systems) > 1),
                        *filter(None, force_field_words(first.config).values()),
                        *varied_words(first.config),
                    ]
                ),
                _doubted(first, f"{first.metrics['latency_median_ms']:.3g} ms ({first.config['batch_size']})"),
                _doubted(first, format_ratio(first, "speedup_vs_baseline")),
                _doubted(best, f"{best.metrics['throughput_systems_per_s']:,.0f} ({best.config['batch_size']:,})"),
                _doubted(best, format_ratio(best, "speedup_vs_single_eager")),
                f"{error.metrics['force_relative_rmse_vs_fp64_percent']:.2g}%",
                stability(first, results) or "",
            ]
        )
    return markdown_table(HEADLINE, lines) + "\n"


def _doubted(result: RunResult, text: str) -> str:
    return text if result.trusted else f"{text} (?)"


def _public(results: Sequence[RunResult]) -> dict[str, Any]:
    """Return the environment of the first run, with the uncommitted changes of every run."""
    first = next((result.environment for result in results if result.environment), {})
    kept = {key: value for key, value in first.items() if key not in OMITTED}
    diffs = dict.fromkeys(diff for result in results if (diff := result.environment.get("git_diff")))
    kept["uncommitted_changes"] = bool(diffs)
    if diffs:
        kept["git_diff_sha256"] = [hashlib.sha256(diff.encode()).hexdigest() for diff in diffs]
    return kept


def _write_table(results: Sequence[RunResult], path: Path) -> None:
    """Write a line for each run, with a column for each metric that some run has."""
    metrics = sorted({metric for result in results for metric in result.metrics})
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        keys = dict.fromkeys(key for result in results for key in recorded_varied(result.config))
        writer.writerow([*DESCRIBED, *RUN_KEY, *keys, *metrics])
        for result in results:
            verdict = "" if result.verdict is None else result.verdict.decision
            tags = [result.tags.get(tag, "") for tag in DESCRIBED[3:]]
            numbers = [f"{result.metrics[metric]:.6g}" if metric in result.metrics else "" for metric in metrics]
            what, varied = asdict(result.key), recorded_varied(result.config)
            said = ["" if what[key] is None else what[key] for key in RUN_KEY]
            said += [varied.get(key, "") for key in keys]
            writer.writerow([label(result.config), result.status, verdict, *tags, *said, *numbers])


def _write_kernels(directory: Path, results: Mapping[int, RunResult], path: Path) -> None:
    """Write the costliest kernels of one call of each profiled run; no file if no run was profiled."""
    sources = {directory / str(number) / "kernels.csv": label(result.config) for number, result in results.items()}
    kernels = {source: (name, _kernels(source)) for source, name in sources.items() if source.exists()}
    if not kernels:
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("run", "total_us", "launches", "kernel"))
        for name, lines in kernels.values():
            writer.writerows([name, *line] for line in lines)


def _kernels(source: Path) -> list[list[str]]:
    """Return the costliest kernels in the file that the profiler wrote.

    Raises:
        ResultError: the file can't be read. The message names it.
    """
    try:
        refuse_irregular(source)
        with source.open(encoding="utf-8", newline="") as file:
            return list(islice(csv.reader(file), 1, 1 + MAX_KERNELS))
    except (OSError, ValueError, csv.Error) as error:
        raise ResultError(f"{source} can't be read: {error}") from error
