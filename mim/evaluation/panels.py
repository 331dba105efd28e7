"""Small multiples: many curves side by side on equal axes, with one legend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mim.evaluation.curves import page_drawing
from mim.evaluation.styles import STYLES


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Attributes:
        name: A key of `STYLES`.
        across: Where its points stand.
        up: Their values.
    """

    name: str
    across: Sequence[float]
    up: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """One pair of axes: its curves, and the range of its values."""

    curves: Sequence[Curve]
    low: float = 0.0
    high: float = 1.0


def small_multiples(
    name: str, panels: Mapping[tuple[str, str], Panel], across: str, label: str, size: tuple[float, float] = (7.6, 2.1)
) -> str:
    """Draws panels in rows and columns.

    Args:
        name: Part of the ids in the drawing; another one for each drawing of a page.
        panels: By row (said at the left) and column (said above), in their order; each row has all columns.
        across: What the horizontal axes show.
        label: What a screen reader says in the drawing's place.
        size: Width of all and height of a row, in inches.
    """
    rows = list(dict.fromkeys(row for row, _ in panels))
    columns = list(dict.fromkeys(column for _, column in panels))

    def fill(figure: Figure) -> None:
        grid = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey="row")
        met: dict[str, Any] = {}
        for axes_row, row in zip(grid, rows, strict=True):
            for axes, column in zip(axes_row, columns, strict=True):
                met |= _draw(axes, panels[row, column])
                if axes is axes_row[0]:
                    axes.set_ylabel(row)
                if row == rows[0]:
                    axes.set_title(column, fontsize=10)
                if row == rows[-1]:
                    axes.set_xlabel(across, fontsize=9)
        figure.legend(met.values(), met.keys(), loc="outside lower center", ncols=min(len(met), 4))

    return page_drawing(name, fill, label, (size[0], size[1] * len(rows) + 0.9))


def _draw(axes: Axes, panel: Panel) -> dict[str, Any]:
    lines = {}
    for curve in panel.curves:
        lines[curve.name] = axes.plot(curve.across, curve.up, markersize=3.5, **STYLES[curve.name])[0]
    margin = 0.03 * (panel.high - panel.low)
    axes.set(xlim=(-0.02, 1.02), ylim=(panel.low - margin, panel.high + margin))
    axes.grid(visible=True)
    return lines
