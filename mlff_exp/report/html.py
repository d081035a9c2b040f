"""Make the report as one page of HTML that loads nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from mlff_exp.report.content import PROMISES, UNFINISHED, Content, Row, filled_columns
from mlff_exp.report.validity import LARGEST_ERRORS, LARGEST_STRESS_ERRORS
from mlff_exp.results import ENOUGH_PS, RunResult

TEMPLATE = "report.html.j2"
MAX_UNFOLDED = 3  # a warning with more lines is folded


def html_page(name: str, content: Content, results: Sequence[RunResult]) -> str:
    """Make the report as HTML, with the figures of its runs.

    Args:
        name: title.
        content: what it says.
        results: of the runs.
    """
    # Imported here: a single run prints its row without matplotlib.
    from mlff_exp.report.figures import figures

    environment = Environment(
        loader=PackageLoader("mlff_exp.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["cells"] = _cells
    images = {}
    for title, figure in figures(results).items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        images[title] = base64.b64encode(buffer.getvalue()).decode()
    columns, rows = filled_columns(content.columns, content.rows)
    return environment.get_template(TEMPLATE).render(
        name=name,
        content=content,
        promises=PROMISES,
        columns=columns,
        rows=rows,
        images=images,
        max_unfolded=MAX_UNFOLDED,
        largest={metric: f"{largest:g}" for metric, largest in (LARGEST_ERRORS | LARGEST_STRESS_ERRORS).items()},
        enough_ps=f"{ENOUGH_PS:g}",
    )


def _cells(row: Row) -> list[tuple[str, int | None]]:
    """Return cells with the number of columns that each spans: a reason takes the place of the numbers."""
    cells, span = row.cells, 1
    if row.style in UNFINISHED:
        status = cells.index(row.style.upper(), 1)
        cells, span = (*cells[: status + 1], cells[-1]), len(cells) - status - 1
    return [*((cell, None) for cell in cells[:-1]), (cells[-1], span)]
