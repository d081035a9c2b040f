"""Make figures without pyplot, which would look for a backend that may not be installed."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure


def subplots(rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **more: Any) -> tuple[Figure, Any]:
    """Make a figure and its axes as pyplot's function of this name does, with a layout without overlaps.

    Args:
        rows: of axes.
        columns: of axes.
        figsize: width and height, inches.
        more: for `Figure.subplots`.
    """
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, columns, **more)
