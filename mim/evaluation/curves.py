"""Plots as inline SVG: ROC curve, precision-recall curve, histogram of scores.

Text stays text, and colours are left to the page (`currentColor` and custom properties with a fallback), so that one
drawing reads on white, on a dark screen and on paper. The same input gives the same bytes.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from mim.evaluation.predictions import Predictions

INK, FAINT, POSITIVE, NEGATIVE, ACCENT = "#010101", "#020202", "#030303", "#040404", "#050505"
"""Stand-ins that matplotlib draws with; the page's own colours take their place."""

PAGE_COLOURS: Mapping[str, str] = MappingProxyType(
    {
        INK: "currentColor",
        FAINT: "var(--line, #9aa5b1)",
        POSITIVE: "var(--positive, #b34700)",
        NEGATIVE: "var(--negative, #00639c)",
        ACCENT: "var(--accent, #0b5c78)",
    }
)
STYLE: Mapping[Any, Any] = MappingProxyType(
    {
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": "mim",
        "font.size": 10.0,
        "text.color": INK,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "grid.color": FAINT,
        "grid.alpha": 0.35,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 9.0,
    }
)
BINS = 20


def roc_plot(test: Predictions, val: Predictions, threshold: float | None, label: str, drawing: str = "roc") -> str:
    """Draw sensitivity against 1 - specificity, with the point of the threshold on either split.

    Args:
        test: Test films of both classes.
        val: Validation films; left out where they are not of both classes.
        threshold: Score at and above which a film is positive; None = not marked.
        label: What a screen reader says in the plot's place.
        drawing: What sets its ids apart from those of other drawings of the page.
    """

    def draw(axes: Axes) -> None:
        axes.plot((0, 1), (0, 1), color=FAINT, linestyle=":", linewidth=1.2, label="chance")
        for films, name, colour, marker in _splits(test, val):
            if not _both_classes(films):
                continue
            wrong, right, _ = roc_curve(films.label, films.score, drop_intermediate=False)
            axes.plot(wrong, right, color=colour, label=name, **_line(name))
            if threshold is not None:
                called = films.score >= threshold
                point = called[films.label == 0].mean(), called[films.label == 1].mean()
                _mark(axes, point, colour, marker, f"{name}, at the threshold")
        _square(axes, "1 − specificity (false alarms among negatives)", "sensitivity (positives found)")

    return draw_plot(drawing, draw, label)


def precision_recall_plot(test: Predictions, val: Predictions, threshold: float | None, label: str) -> str:
    """Draw precision against sensitivity, with the prevalence of the test films and the points of the threshold.

    Args:
        test: Test films of both classes.
        val: Validation films; left out where they are not of both classes.
        threshold: Score at and above which a film is positive; None = not marked.
        label: What a screen reader says in the plot's place.
    """

    def draw(axes: Axes) -> None:
        prevalence = float(test.label.mean())
        name = f"prevalence {prevalence:.3f}"
        axes.plot((0, 1), (prevalence, prevalence), color=FAINT, linestyle=":", linewidth=1.2, label=name)
        for films, name, colour, marker in _splits(test, val):
            if not _both_classes(films):
                continue
            precision, recall, _ = precision_recall_curve(films.label, films.score)
            axes.plot(recall, precision, color=colour, label=name, drawstyle="steps-post", **_line(name))
            called = films.score >= (np.inf if threshold is None else threshold)
            if called.any():
                point = called[films.label == 1].mean(), films.label[called].mean()
                _mark(axes, point, colour, marker, f"{name}, at the threshold")
        _square(axes, "sensitivity (positives found)", "precision (alarms that are right)")

    return draw_plot("pr", draw, label)


def score_histogram(films: Predictions, threshold: float | None, label: str) -> str:
    """Draw how the scores of either class are spread.

    Args:
        films: The films, at least one.
        threshold: Score at and above which a film is positive; None = not marked.
        label: What a screen reader says in the plot's place.
    """

    def draw(axes: Axes) -> None:
        edges = np.linspace(0, 1, BINS + 1)
        for value, name, colour in ((0, "negative", NEGATIVE), (1, "positive", POSITIVE)):
            scores = films.score[films.label == value]
            counts, _ = np.histogram(scores, edges)
            title = f"{name} ({len(scores)})"
            axes.stairs(counts, edges, fill=True, color=colour, alpha=0.28, linewidth=0)
            if value:  # told apart without colour too
                lines: dict[str, Any] = {"facecolor": "none", "edgecolor": colour, "hatch": "////", "alpha": 0.45}
                axes.stairs(counts, edges, fill=True, linewidth=0, **lines)
            axes.stairs(counts, edges, color=colour, linewidth=1.8, label=title)
        if threshold is not None:
            axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.2, label=f"threshold {threshold:.3f}")
        axes.set(xlim=(0, 1), xlabel="score (probability of the positive class)", ylabel="films")
        axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.grid(visible=True, axis="y")

    return draw_plot("scores", draw, label, size=(7.2, 3.2), below=-0.2)


def _splits(test: Predictions, val: Predictions) -> Sequence[tuple[Predictions, str, str, str]]:
    return (val, "validation", NEGATIVE, "D"), (test, "test", POSITIVE, "o")


def _both_classes(films: Predictions) -> bool:
    return len(np.unique(films.label)) == 2


def _line(name: str) -> dict[str, Any]:
    return {"linewidth": 2.2} if name == "test" else {"linewidth": 1.3, "linestyle": "--"}


def _mark(axes: Axes, point: tuple[float, float], colour: str, marker: str, label: str) -> None:
    style: dict[str, Any] = {
        "markersize": 8,
        "markeredgewidth": 1.8,
        "linestyle": "none",
        "clip_on": False,
        "zorder": 5,
    }
    fill = colour if marker == "o" else "none"
    axes.plot(*point, marker=marker, color=colour, markerfacecolor=fill, label=label, **style)


def _square(axes: Axes, across: str, up: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=across, ylabel=up)
    axes.set_aspect("equal")
    axes.grid(visible=True)


def draw_plot(
    name: str, draw: Callable[[Axes], None], label: str, size: tuple[float, float] = (4.6, 4.9), below: float = -0.16
) -> str:
    """Draw on fresh axes in mim's own style, whatever the user's, and make it fit to stand in a page.

    Args:
        name: What sets the ids of this drawing apart from those of others on the page.
        draw: Draws on the axes, in INK, FAINT, POSITIVE, NEGATIVE and ACCENT only.
        label: What a screen reader says in the plot's place.
        size: Width and height in inches.
        below: Where the legend stands, in heights of the axes.

    Returns:
        An SVG element.
    """

    def fill(figure: Figure) -> None:
        axes = figure.add_subplot()
        draw(axes)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, below), ncols=3 if size[0] > 5 else 2)

    return page_drawing(name, fill, label, size)


def page_drawing(name: str, fill: Callable[[Figure], None], label: str, size: tuple[float, float]) -> str:
    """Draw in mim's own style, whatever the user's, and make the drawing fit to stand in a page.

    Args:
        name: Part of the ids in the drawing; another one for each drawing of a page.
        fill: Draws on an empty figure, in the stand-in colours.
        label: What a screen reader says in the drawing's place.
        size: Width and height in inches.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        fill(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _for_page(file.getvalue(), name, label)


def _for_page(svg: str, name: str, label: str) -> str:
    """Make ids the page's only ones, colours the page's own, and give the drawing a name for screen readers."""
    drawing = svg[svg.index("<svg") :]
    head, body = drawing.split(">", 1)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # it would style the whole page
    box = re.search(r'viewBox="[^"]*"', head)
    assert box, "matplotlib gives every drawing a viewBox"
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    for stand_in, colour in PAGE_COLOURS.items():
        body = body.replace(stand_in, colour)
    return f'<svg class="plot" role="img" aria-label="{escape(label)}" {box[0]}>{body.strip()}'
