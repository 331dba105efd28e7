"""Where the picture of a film begins: uniform margins, and the shutters of the exposed field.

Both searches would rather leave a margin than cut into the picture: what they do not recognise stays.
"""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from mim.data.regions import Rectangle, whole

Crop = Literal["none", "border", "collimation"]

_LINE_RANGE = 8 / 255  # of a uniform line, noise and compression included
_LINE_DRIFT = 5 / 255  # of a line's mean from that of the outermost one
_SMALLEST_SHARE = 0.25  # of either side that must be left, else the film is left whole

_SEARCH_SIDE = 512  # shutters are sought in a film reduced to this
_DEEPEST = 0.45  # share of the film in which an edge is sought, from each side
_MARGIN_RANGE = 10 / 255  # of the margin around its median
_MARGIN_SHARE = 0.995  # of the margin's pixels that must keep within that range; the rest may be a marker
_STEP = 24 / 255  # least difference of the exposed field from the margin
_STEEP = 3  # pixels of the reduced film within which the step must be done
_STRAIGHT = 1.5  # pixels of the reduced film that a straight edge may deviate from its line
_STRAIGHT_SHARE = 0.85  # of the lines across that must meet the edge there
_SPAN = 0.5  # share of the film's other side that an edge must run along
_TILT = 0.09  # greatest slope of an edge, about 5 degrees
_SAFETY = 1  # pixels of the reduced film kept outside the edge


def find_crop(pixels: NDArray[np.float32], crop: Crop) -> Rectangle:
    """Find the part of a film to keep.

    Args:
        pixels: (H, W) in [0, 1].
        crop: "none" keeps everything. "border" takes away rows and columns at the edges that are uniform, of one gray
            or nearly so along their whole length: a scanner's or an export's frame. "collimation" does that and then
            takes away what lies outside straight, sharp edges between the exposed field and a nearly constant margin:
            the shutters of a tube. Edges may be tilted by 5 degrees; what remains is upright and holds all of the
            field. Curved edges (a breast, a shoulder) are never taken for shutters.

    Returns:
        The part; the whole film where next to nothing would remain.
    """
    everything = whole(*pixels.shape)
    if crop == "none":
        return everything
    part = _within_border(pixels, everything)
    if crop == "collimation":
        part = _within_shutters(pixels, part)
    enough = min(part.width / everything.width, part.height / everything.height) >= _SMALLEST_SHARE
    return part if enough else everything


def _within_border(pixels: NDArray[np.float32], part: Rectangle) -> Rectangle:
    """Take uniform lines off all four sides until none is left."""
    while True:
        inner = pixels[part.slices]
        top, bottom = _uniform_ends(inner)
        if top + bottom >= part.height:
            return part  # a blank film
        left, right = _uniform_ends(inner[top : part.height - bottom].T)
        if left + right >= part.width:
            return part
        if not top + bottom + left + right:
            return part
        part = Rectangle(part.left + left, part.top + top, part.right - right, part.bottom - bottom)


def _uniform_ends(pixels: NDArray[np.float32]) -> tuple[int, int]:
    """Count the uniform rows at the beginning and at the end."""
    uniform = pixels.max(axis=1) - pixels.min(axis=1) <= _LINE_RANGE
    means = pixels.mean(axis=1)
    beginning = uniform & (np.abs(means - means[0]) <= _LINE_DRIFT)
    end = (uniform & (np.abs(means - means[-1]) <= _LINE_DRIFT))[::-1]
    return _leading(beginning), _leading(end)


def _leading(truths: NDArray[np.bool_]) -> int:
    return len(truths) if truths.all() else int(np.argmin(truths))


def _within_shutters(pixels: NDArray[np.float32], part: Rectangle) -> Rectangle:
    inner = pixels[part.slices]
    scale = max(1.0, max(inner.shape) / _SEARCH_SIDE)
    size = (max(1, round(part.width / scale)), max(1, round(part.height / scale)))
    small = cv2.resize(inner, size, interpolation=cv2.INTER_AREA) if scale > 1 else inner
    if min(small.shape) < 32:
        return part
    views = {"left": small.T, "top": small, "right": small[:, ::-1].T, "bottom": small[::-1]}
    cut = {side: int(_shutter_depth(view) * scale) for side, view in views.items()}
    return Rectangle(
        part.left + cut["left"], part.top + cut["top"], part.right - cut["right"], part.bottom - cut["bottom"]
    )


def _shutter_depth(pixels: NDArray[np.float32]) -> int:
    """Count the rows at the top that lie outside a shutter's edge; 0 where there is none."""
    depth = int(pixels.shape[0] * _DEEPEST)
    level = float(np.median(pixels[0]))
    edges = _first_departures(np.abs(pixels[: depth + _STEEP + 1] - level) > _STEP / 2)
    met = np.flatnonzero(edges <= depth)
    if len(met) < _SPAN * pixels.shape[1] or np.median(edges[met]) < 2:
        return 0
    slope, start = _line_through(met, edges[met])
    line = start + slope * met
    straight = np.abs(edges[met] - line) <= _STRAIGHT
    inside = pixels[np.minimum(edges[met] + _STEEP, pixels.shape[0] - 1), met]
    sharp = np.abs(inside - level) > _STEP
    if abs(slope) > _TILT or np.mean(straight & sharp) < _STRAIGHT_SHARE:
        return 0
    rows = int(min(line[0], line[-1])) - _SAFETY
    while rows > 0 and not _is_margin(pixels[:rows], level):
        rows -= 1
    return max(0, rows)


def _first_departures(departs: NDArray[np.bool_]) -> NDArray[np.int64]:
    """First row of each column from which on two in a row depart from the margin; else the number of rows."""
    twice = departs[:-1] & departs[1:]
    return np.where(twice.any(axis=0), np.argmax(twice, axis=0), len(departs))


def _line_through(along: NDArray[np.int64], depth: NDArray[np.int64]) -> tuple[float, float]:
    """Slope and start of the line that most points follow: the median slope over a third of the span (Theil-Sen)."""
    apart = max(1, len(along) // 3)
    slope = float(np.median((depth[apart:] - depth[:-apart]) / (along[apart:] - along[:-apart])))
    return slope, float(np.median(depth - slope * along))


def _is_margin(pixels: NDArray[np.float32], level: float) -> bool:
    return float(np.mean(np.abs(pixels - level) <= _MARGIN_RANGE)) >= _MARGIN_SHARE
