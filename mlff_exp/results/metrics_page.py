"""Make the page docs/metrics.md from the registry: ``python -m mlff_exp.results.metrics_page > docs/metrics.md``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mlff_exp.results.metrics import INFERENCE, LABELLED, NVE, SERIES, Metric

HEAD = """\
# Metrics

<!-- Made from mlff_exp/results/metrics.py by `make docs`. -->

The same names stand in `result.json`, MLflow, reports and gates; each ends with its unit. A metric that does not
apply is absent, never NaN or infinite. With `_ci_low` and `_ci_high` behind it a name is an end of the metric's
interval, 95% but for the controls (99.9%). What follows a slash is a part of the set (`…/atoms/9-16`, `…/element/C`,
`…/watched` while training) or one of several systems (`…/benzene`).
An installed package [adds metrics of its own](extending.md#a-metric-of-your-own).
"""
SECTIONS = (
    ("`task=inference`", "How they are measured: [measurement](measurement.md).", INFERENCE),
    ("`task=accuracy` and `task=distill`", "`graph_count` and the four metrics against FP64 are as above.", LABELLED),
    (
        "`task=nve`",
        "Limits and reasons: [NVE validation](nve_validation.md). Each is the value of the replica that "
        "is farthest\nfrom what is ideal, but for the mean drift.",
        NVE,
    ),
)


def metrics_page() -> str:
    """Return the text of docs/metrics.md: a table for each task, and the series."""
    parts = [HEAD]
    for title, text, metrics in SECTIONS:
        parts.append(f"## {title}\n\n{text}\n\n{_table(metrics)}")
    lines = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in SERIES.items())
    parts.append(f"## Series\n\n| series | what |\n| --- | --- |\n{lines}\n")
    return "\n".join(parts)


def _table(metrics: Sequence[Metric]) -> str:
    lines = [
        f"| `{metric.name}` | {metric.unit} | {'near zero' if metric.better == 'zero' else metric.better} "
        f"| {metric.meaning} |"
        for metric in metrics
    ]
    return "\n".join(["| metric | unit | better | what |", "| --- | --- | --- | --- |", *lines]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(metrics_page())
