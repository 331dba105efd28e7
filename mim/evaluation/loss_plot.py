"""The loss over the steps, with what can be had without learning drawn as lines."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mim.errors import MimError

_POINTS = 2000
_COLOURS = ("#b34700", "#00639c", "#6b6b6b")
_STYLES = ("--", ":", "-.")


def loss_picture(steps: Sequence[int], losses: Sequence[float], lines: Mapping[str, float]) -> bytes:
    """Draws a loss against the logarithm of the steps.

    Args:
        steps: from 1, rising.
        losses: one a step; those that are not finite are left out.
        lines: losses to compare with, by what they stand for.

    Returns:
        A PNG file; the same input gives the same bytes.

    Raises:
        MimError: no loss is finite, or there is not one for each step.
    """
    if len(steps) != len(losses):
        raise MimError(f"plot of the loss: {len(steps)} steps and {len(losses)} losses")
    step, loss = np.asarray(steps, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    step, loss = step[np.isfinite(loss)], loss[np.isfinite(loss)]
    if not len(loss):
        raise MimError("plot of the loss: no loss is a finite number")
    figure = Figure(figsize=(7, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(step, loss, color="#b8c4d0", linewidth=0.8)
    axes.plot(*_smooth(step, loss), color="#10324f", linewidth=1.8, label="loss")
    for number, (name, value) in enumerate(lines.items()):
        style, colour = _STYLES[number % len(_STYLES)], _COLOURS[number % len(_COLOURS)]
        axes.axhline(value, color=colour, linestyle=style, label=f"{name}: {value:.3g}")
    axes.set_xscale("log")
    axes.set_xlim(1, max(2.0, step[-1]))
    top = max([*np.percentile(loss, [98]), *lines.values()])
    bottom = min([float(loss.min()), *lines.values()])
    axes.set_ylim(bottom - 0.05 * (top - bottom) - 1e-9, top + 0.1 * (top - bottom) + 1e-9)
    axes.set_xlabel("steps")
    axes.set_ylabel("loss")
    axes.grid(visible=True, which="major", color="#e3e8ee")
    axes.legend(loc="upper right", fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _smooth(step: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over windows that widen with the step, at most so many."""
    count = min(_POINTS, max(2, int(24 * np.log2(step[-1] + 1))))
    edges = np.unique(np.geomspace(1, step[-1] + 1, count).round())
    window = np.digitize(step, edges)
    places = np.unique(window)
    return (
        np.array([step[window == place].mean() for place in places]),
        np.array([loss[window == place].mean() for place in places]),
    )
