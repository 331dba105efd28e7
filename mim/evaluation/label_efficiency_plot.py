"""A figure against the number of labels, drawn: for the page, as a file of its own, and as a picture."""

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from mim.evaluation.curves import ACCENT, FAINT, INK, NEGATIVE, POSITIVE, STYLE, draw_plot
from mim.evaluation.label_efficiency import LabelEfficiency, Point

PAPER: Mapping[str, str] = MappingProxyType(
    {INK: "#17212b", FAINT: "#9aa5b1", POSITIVE: "#b34700", NEGATIVE: "#00639c", ACCENT: "#0b5c78"}
)
"""Colours of the page on white, for a picture that has no page around it."""
ON_PAGE: Mapping[str, str] = MappingProxyType({colour: colour for colour in PAPER})
_COLOURS, _MARKERS, _LINES = (INK, POSITIVE, NEGATIVE, ACCENT, FAINT), ("o", "s", "D", "^", "v"), ("--", "-", "-.", ":")
_SIZE, _BELOW = (7.2, 4.4), -0.15
_APART = 1.02  # lines of several initialisations stand a little beside each other, so that no interval hides another


def efficiency_plot(found: LabelEfficiency, label: str) -> str:
    """Draw one line an initialisation, with intervals, and a point for each seed.

    Args:
        found: At least one of its points must have a mean.
        label: What a screen reader says in the plot's place.

    Returns:
        An SVG element that takes the colours of the page it stands in.
    """
    return draw_plot("efficiency", lambda axes: _draw(axes, found, ON_PAGE), label, size=_SIZE, below=_BELOW)


def efficiency_file(found: LabelEfficiency, label: str) -> str:
    """The same as an SVG file of its own, on white."""
    alone = '<svg xmlns="http://www.w3.org/2000/svg" style="background: #ffffff; color: #17212b" '
    return efficiency_plot(found, label).replace("<svg ", alone, 1) + "\n"


def efficiency_picture(found: LabelEfficiency) -> bytes:
    """The same as a PNG file; the same input gives the same bytes."""
    style: dict[Any, Any] = {key: PAPER.get(str(value), value) for key, value in STYLE.items()}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**style, "figure.facecolor": "#ffffff"})
        figure = Figure(figsize=_SIZE, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _draw(axes, found, PAPER)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, _BELOW), ncols=3)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _draw(axes: Axes, found: LabelEfficiency, colours: Mapping[str, str]) -> None:
    inits = list(dict.fromkeys(point.init for point in found.points))
    for number, init in enumerate(inits):
        own = [point for point in found.points if point.init == init and point.mean.value is not None]
        beside = _APART ** (number - (len(inits) - 1) / 2)
        colour = colours[_COLOURS[number % len(_COLOURS)]]
        style: dict[str, Any] = {
            "color": colour,
            "marker": _MARKERS[number % len(_MARKERS)],
            "linestyle": _LINES[number % len(_LINES)],
        }
        where, means, ends = [point.labels * beside for point in own], [_mean(point) for point in own], _ends(own)
        axes.errorbar(where, means, yerr=ends, capsize=3, linewidth=1.8, markersize=6, label=_written(init), **style)
        for point, place in zip(own, where, strict=True):
            each = [value for value in point.mean.values if value is not None]
            if len(each) > 1:
                axes.plot([place] * len(each), each, ".", color=colour, alpha=0.55, markersize=4)
    if found.figure.chance is not None:
        axes.axhline(found.figure.chance, color=colours[FAINT], linestyle=":", linewidth=1.2, label="chance")
    ticks = sorted({round(point.labels) for point in found.points})
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([str(tick) for tick in ticks])
    axes.set(
        xlim=(ticks[0] / 1.3, ticks[-1] * 1.3),
        xlabel="labelled films trained on",
        ylabel=f"{found.figure.title}, test films",
    )
    axes.grid(visible=True)


def _mean(point: Point) -> float:
    assert point.mean.value is not None
    return point.mean.value


def _ends(points: list[Point]) -> tuple[list[float], list[float]]:
    """How far the interval of each point reaches below and above its mean; nowhere where it has none."""
    means = [_mean(point) for point in points]
    low = [mean if point.mean.low is None else point.mean.low for mean, point in zip(means, points, strict=True)]
    high = [mean if point.mean.high is None else point.mean.high for mean, point in zip(means, points, strict=True)]
    # the mean over all seeds may lie just outside of a percentile interval
    return (
        [max(0.0, mean - end) for mean, end in zip(means, low, strict=True)],
        [max(0.0, end - mean) for mean, end in zip(means, high, strict=True)],
    )


def _written(init: str) -> str:
    """A name as the legend can hold it: a dollar sign would begin a formula, an underscore in front would hide it."""
    shown = (init if len(init) <= 32 else f"{init[:31]}…").replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
