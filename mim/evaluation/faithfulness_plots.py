"""Drawings of the faithfulness block: AUC against the share that is seen, and lesion recall by severity."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from mim.evaluation.curves import FAINT, INK, page_drawing
from mim.evaluation.faithfulness import WAYS
from mim.evaluation.figures import Figure
from mim.evaluation.lesion_recall import Recall
from mim.evaluation.styles import STYLES


def keep_curve(curves: Mapping[str, Mapping[float, Figure]], share: float | None, label: str) -> str:
    """Draws AUC against the share of cells that is seen, with the intervals of the run's mask and of random masks.

    Args:
        curves: By a name of `WAYS` and share; points without a value are left out.
        share: That of the run's own mask, marked; None = not marked.
        label: What a screen reader says in the plot's place.
    """

    def fill(drawing: Drawing) -> None:
        axes = drawing.add_subplot()
        axes.axhline(0.5, color=FAINT, linestyle=":", linewidth=1.2)
        for name in WAYS:
            if name in curves:
                _curve(axes, name, curves[name])
        if share is not None:
            axes.axvline(100 * share, color=INK, linestyle=(0, (1, 3)), linewidth=1.2, label="share of the run's mask")
        axes.set(xlim=(0, 102), xlabel="cells that are seen, % (the rest is hidden from the network)", ylabel="AUC")
        axes.grid(visible=True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3)

    return page_drawing("faithfulness", fill, label, (7.2, 4.4))


def _curve(axes: Axes, name: str, points: Mapping[float, Figure]) -> None:
    drawn = [(100 * rate, figure) for rate, figure in sorted(points.items())]
    across = [rate for rate, figure in drawn if figure.value is not None]
    up = [figure.value for _, figure in drawn if figure.value is not None]
    if not up:
        return
    style = STYLES[name]
    axes.plot(across, up, label=WAYS[name], markersize=5, **style)
    bounds = [(figure.low, figure.high) for _, figure in drawn if figure.value is not None]
    if name in ("masker", "random") and all(low is not None for low, _ in bounds):
        lows, highs = zip(*bounds, strict=True)
        axes.fill_between(across, lows, highs, color=style["color"], alpha=0.14, linewidth=0)


def recall_plot(rows: Sequence[Recall], names: Sequence[str], label: str) -> str:
    """Draws the share of lesions that is visible by severity, mildest at the top, with intervals.

    Args:
        rows: By grade, as `lesion_recall` gives them.
        names: Which masks, of `WAYS`.
        label: What a screen reader says in the plot's place.
    """

    def fill(drawing: Drawing) -> None:
        axes = drawing.add_subplot()
        for place, name in enumerate(names):
            _recalls(axes, rows, name, (place - (len(names) - 1) / 2) * 0.22)
        counted = [f"{row.grade} ({row.lesions})" for row in rows]
        axes.set_yticks(range(len(rows)), counted)
        for text_of_tick in axes.get_yticklabels():
            text_of_tick.set_parse_math(False)  # a grade may be called anything
        axes.set(xlim=(-1, 101), xlabel="lesions with at least half their area visible, %")
        axes.invert_yaxis()
        axes.grid(visible=True, axis="x")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.55 / (1 + 0.45 * len(rows))), ncols=3)

    return page_drawing("lesion-recall", fill, label, (7.2, 1.6 + 0.5 * len(rows)))


def _recalls(axes: Axes, rows: Sequence[Recall], name: str, shift: float) -> None:
    style = STYLES[name]
    label: str | None = WAYS[name]
    for place, row in enumerate(rows):
        figure = row.figures[name]
        if figure.value is None:
            continue
        if figure.low is not None and figure.high is not None:
            axes.plot((100 * figure.low, 100 * figure.high), (place + shift,) * 2, color=style["color"], linewidth=1.6)
        point = {"color": style["color"], "marker": style["marker"], "markersize": 6, "linestyle": "none"}
        axes.plot(100 * figure.value, place + shift, label=label, clip_on=False, zorder=5, **point)
        label = None  # named once
