"""Scores of cells, and what a threshold on them keeps, drawn."""

import io
from dataclasses import dataclass

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_BINS = 60
_ALL, _LESIONS, _CHOSEN = "#8a99a8", "#b34700", "#10324f"


@dataclass(frozen=True)
class ThresholdCurve:
    """What thresholds keep of the films of one split.

    Attributes:
        thresholds: (T,), ascending.
        keep_rate: (T,) share of the cells that is kept.
        lesion_recall: (T,) share of the lesions of which at least half the area is visible; NaN where there are none.
    """

    thresholds: npt.NDArray[np.float64]
    keep_rate: npt.NDArray[np.float64]
    lesion_recall: npt.NDArray[np.float64]


def threshold_picture(
    cells: npt.ArrayLike, lesion_cells: npt.ArrayLike, curve: ThresholdCurve, chosen: float, recall: float, score: str
) -> bytes:
    """Draws the distribution of the scores above the shares that are kept.

    Args:
        cells: scores of all cells.
        lesion_cells: scores of the cells that lesions lie in.
        curve: of the same films.
        chosen: the threshold that is proposed.
        recall: share of the lesions that was asked for.
        score: what was scored, in words.

    Returns:
        A PNG file; the same input gives the same bytes.
    """
    everything, lesions = np.ravel(np.asarray(cells, np.float64)), np.ravel(np.asarray(lesion_cells, np.float64))
    low, high = np.quantile(everything, [0.001, 0.999])
    low, high = min(low, chosen), max(high, chosen)
    high = high if high > low else low + 1
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(6.4, 5.6), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        above, below = figure.subplots(2, 1, sharex=True)
        for values, name, colour in ((everything, "all cells", _ALL), (lesions, "cells with a lesion", _LESIONS)):
            if len(values):
                weights = np.full(len(values), 1 / len(values))
                above.hist(
                    values,
                    _BINS,
                    (low, high),
                    weights=weights,
                    histtype="step",
                    color=colour,
                    label=name,
                    linewidth=1.5,
                )
        above.set_ylabel("share of the cells")
        below.plot(curve.thresholds, curve.lesion_recall, color=_LESIONS, label="lesions visible (half their area)")
        below.plot(curve.thresholds, curve.keep_rate, color=_ALL, label="cells kept")
        below.axhline(recall, color=_LESIONS, linestyle=":", linewidth=1, label=f"wanted: {recall:g} of the lesions")
        below.set_ylabel("share kept")
        below.set_ylim(-0.02, 1.04)
        below.set_xlim(low, high)
        below.set_xlabel(f"{score}: threshold")
        for axes in (above, below):
            _finish(axes, chosen)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _finish(axes: Axes, chosen: float) -> None:
    axes.axvline(chosen, color=_CHOSEN, linestyle="--", linewidth=1.2, label=f"proposed: {chosen:.4g}")
    axes.grid(visible=True, color="#e3e8ee")
    axes.legend(fontsize=8)
