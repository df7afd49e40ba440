"""How the studies' pictures look: one style for all, on white, told apart in gray as well."""

from __future__ import annotations

from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Dark to light, so that they differ in gray too; blue, vermilion and sky blue of Okabe and Ito's palette.
COLORS = ("#003f72", "#d55e00", "#56b4e9")
#: A second way to tell them apart.
STROKES = ("-", "--", ":")

_STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


def panels(
    rows: int, columns: int, *, width: float, height: float, layout: str | None = "constrained", **options: object
) -> tuple[Figure, list[list[Axes]]]:
    """A figure and its axes, row by row; sizes in inches. Margins are found, or with ``layout=None`` the caller's."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), facecolor="white", layout=layout)
        axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, [list(row) for row in axes]


def save(figure: Figure, path: Path) -> None:
    """As PNG, the same bytes for the same picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(_STYLE):
        figure.savefig(path, dpi=110, metadata={"Software": None})
