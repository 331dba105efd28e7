"""Windows of a film at its own resolution: where they lie, and what of an annotation is left in one."""

import math
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mim.data.cut import Cut
from mim.data.manifest import ManifestRow
from mim.data.regions import Box, Rectangle, cover, whole
from mim.data.store import PreparedDataset
from mim.errors import MimError

Size = tuple[int, int]  # height and width in pixels

LEAST_INSIDE = 0.3  # of a box, as far as a window can hold it: what is left of less says little of what it is


def native_size(row: ManifestRow) -> Size:
    """Height and width of what is stored of a film, in pixels of the film before it was reduced."""
    return (row.height, row.width) if row.crop is None else (row.crop.height, row.crop.width)


def fitted(film: Size, window: Size) -> Size:
    """A window that is nowhere larger than the film."""
    return min(film[0], window[0]), min(film[1], window[1])


def sliding_windows(film: Size, window: Size, overlap: float) -> list[Rectangle]:
    """Cover a film with windows of one size, row by row, the last of a row or column shifted inward.

    The positions are those of MONAI's `dense_patch_slices`. Of a film that is lower or narrower than a window, windows
    are as low or narrow.

    Args:
        film: Height and width of the film.
        window: Height and width of a window.
        overlap: By which share of a window's sides neighbours overlap at least, from 0 to below 1.
    """
    rows, columns = (min(side - 1, math.ceil(side * overlap)) for side in window)
    return cover(whole(*film), window, (rows, columns))


def as_cut(part: Rectangle, film: Size) -> Cut:
    """A rectangle of a film as shares of its sides."""
    height, width = film
    return Cut(part.left / width, part.top / height, part.right / width, part.bottom / height)


def place_window(cut: Cut, film: Size, window: Size, rng: random.Random, held: Box | None = None) -> Cut:
    """Take a part of a window, where the window may lie anywhere in the film.

    Args:
        cut: Which part of the window, as shares of its sides; only its width, height and flips are read.
        film: Height and width of the film.
        window: Height and width of the window, in the same pixels.
        rng: Says where.
        held: A box in shares of the film that the part must hold; or lie within, where the box is larger.

    Returns:
        The part, in shares of the film: at all places that hold the box, or at all places, with equal probability.
    """
    high, wide = fitted(film, window)
    across = _start(min(1.0, (cut.right - cut.left) * wide / film[1]), rng, None if held is None else held[::2])
    down = _start(min(1.0, (cut.bottom - cut.top) * high / film[0]), rng, None if held is None else held[1::2])
    return Cut(across[0], down[0], across[1], down[1], cut.mirrored, cut.upside_down)


def _start(length: float, rng: random.Random, held: Sequence[float] | None) -> tuple[float, float]:
    low, high = 0.0, 1 - length
    if held is not None:
        first, last = sorted((held[1] - length, held[0]))
        low, high = min(max(low, first), high), max(low, min(high, last))
    start = low + rng.random() * (high - low)
    return start, start + length


def enough_inside(boxes: NDArray[np.float32], cut: Cut) -> NDArray[np.int64]:
    """Find the boxes of which enough lies in a part of a film to be sought there.

    Enough is `LEAST_INSIDE` of a box's area, or, of a box that is wider or higher than the part, of as much as the part
    can hold of it.

    Args:
        boxes: (N, 4) x1, y1, x2, y2 as shares of the film's width and height.
        cut: The part.

    Returns:
        (M,) which of them.
    """
    corners = boxes.astype(np.float64).reshape(-1, 4)
    low, high = np.array([cut.left, cut.top]), np.array([cut.right, cut.bottom])
    inside = (np.minimum(corners[:, 2:], high) - np.maximum(corners[:, :2], low)).clip(0)
    most = np.minimum(corners[:, 2:] - corners[:, :2], high - low)
    return np.flatnonzero(inside.prod(axis=1) >= LEAST_INSIDE * most.prod(axis=1))


def count_larger_than_overlap(size: Size, boxes: Sequence[Box], window: Size, overlap: float) -> int:
    """Count boxes that are larger than what neighbouring windows share, so that no window need hold them whole.

    Args:
        size: Height and width of a film.
        boxes: As shares of them.
        window: Height and width of a window, in the same pixels.
        overlap: As in `sliding_windows`.
    """
    limits = [math.inf if film <= side else math.ceil(side * overlap) for film, side in zip(size, window, strict=True)]
    sides = (((box[3] - box[1]) * size[0], (box[2] - box[0]) * size[1]) for box in boxes)
    return sum(any(side > limit for side, limit in zip(pair, limits, strict=True)) for pair in sides)


def check_resolution(films: PreparedDataset, chosen: Sequence[int], window: Size, image_size: Size) -> None:
    """Refuse films that are stored at a lower resolution than that at which a network is to meet their windows.

    Args:
        films: The prepared dataset.
        chosen: Which of its films.
        window: Height and width in pixels of the film before it was reduced.
        image_size: Height and width in pixels of what a window becomes.

    Raises:
        MimError: naming the setting, and how large films must be stored.
    """
    coarse, side = 0, 0
    for number in chosen:
        native = native_size(films.rows[number])
        pairs = zip(native, fitted(native, window), image_size, strict=True)
        needed = [film * min(1.0, image / part) for film, part, image in pairs]
        stored = films.image(number).shape
        coarse += any(has + 1 < needs for has, needs in zip(stored, needed, strict=True))  # a pixel is lost in rounding
        side = max(side, math.ceil(max(native) * max(n / f for n, f in zip(needed, native, strict=True))))
    if coarse:
        raise MimError(
            f"detect.window: {coarse} of {len(chosen)} films are stored with fewer pixels than windows of "
            f"{window[0]} x {window[1]} pixels need for images of {image_size[0]} x {image_size[1]} "
            f"(data.long_side is {films.long_side}); give data.long_side={side}"
        )
