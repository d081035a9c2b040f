"""Figures without pyplot, which would look for a backend of its own: a notebook's, or one that is not installed."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure


def subplots(rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **more: Any) -> tuple[Figure, Any]:
    """A figure and its axes, as pyplot's function of this name makes them, and laid out so that nothing overlaps.

    Args:
        rows: of axes.
        columns: of axes.
        figsize: width and height, inches.
        more: for `Figure.subplots`.
    """
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, columns, **more)
