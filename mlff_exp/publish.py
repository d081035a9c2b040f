"""A report as it is kept in a repository: text, small figures and tables, no machine's paths."""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from mlff_exp.figures import figures
from mlff_exp.report import content, markdown, read
from mlff_exp.result import RESULT_FILE, RunResult, label

DPI = 80
# What the columns of the table say of a run, before its metrics.
DESCRIBED = ("run", "status", "verdict", "timing.trust", "checkpoint.sha256")
# Of no use to anybody else, or of one run alone.
OMITTED = ("hostname", "platform", "cuda_visible_devices", "git_diff", "gpu_samples", "cores_used_by_others")


def main() -> None:
    """Command line of ``mlff-exp-publish``."""
    parser = argparse.ArgumentParser(
        prog="mlff-exp-publish",
        description="Write a sweep's report to keep in a repository: README.md, figures, runs.csv, environment.json.",
    )
    parser.add_argument("directory", type=Path, help="of the sweep, with one folder for each run")
    parser.add_argument("target", type=Path, help="where to; made if it is not there")
    parser.add_argument("--name", help="title of the report (default: the name of the directory)")
    arguments = parser.parse_args()
    if not any(arguments.directory.glob(f"*/{RESULT_FILE}")):
        parser.error(f"{arguments.directory} holds no runs: there is no */{RESULT_FILE}")
    name = arguments.name or arguments.directory.resolve().name
    print(f"published: {publish(read(arguments.directory), name, arguments.target)}")


def publish(results: Sequence[RunResult], name: str, target: Path) -> Path:
    """Write ``README.md``, figures, ``runs.csv`` and ``environment.json`` into a directory; returns the first."""
    target.mkdir(parents=True, exist_ok=True)
    images = {}
    for title, figure in figures(results).items():
        images[title] = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") + ".png"
        figure.savefig(target / images[title], dpi=DPI)
        plt.close(figure)
    _write_table(results, target / "runs.csv")
    described = next((result.environment for result in results if result.environment), {})
    (target / "environment.json").write_text(json.dumps(_public(described), indent=1) + "\n")
    page = target / "README.md"
    page.write_text(markdown(name, content(results), images))
    return page


def _public(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in environment.items() if key not in OMITTED}


def _write_table(results: Sequence[RunResult], path: Path) -> None:
    """One line a run, one column a metric that any of them has."""
    metrics = sorted({metric for result in results for metric in result.metrics})
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*DESCRIBED, *metrics])
        for result in results:
            verdict = "" if result.verdict is None else result.verdict.decision
            tags = [result.tags.get(tag, "") for tag in DESCRIBED[3:]]
            numbers = [f"{result.metrics[metric]:.6g}" if metric in result.metrics else "" for metric in metrics]
            writer.writerow([label(result.config), result.status, verdict, *tags, *numbers])
