"""Outlines of what was annotated, as COCO has them, drawn at any size."""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Shares = tuple[float, float, float, float]

_FINE = 4  # a pixel is looked at in so many places a side, where an outline is finer than pixels
_FINEST = 16
_SHIFT = 4  # OpenCV takes corners in 16ths of a pixel
_EDGE = 1e-6  # of a pixel: what rounding may add to a border


@dataclass(frozen=True, slots=True)
class Polygons:
    """One or more polygons.

    Attributes:
        corners: (N, 2) x, y of each, as shares of the width and height of the film.
    """

    corners: tuple[NDArray[np.float64], ...]

    def draw_on(self, canvas: Mask) -> None:
        """Set the pixels of (H, W) of which at least half lies inside; at least one of an outline within the film."""
        size = canvas.shape
        points = [corners * (size[1], size[0]) for corners in self.corners]
        everywhere = np.concatenate(points)
        left, top = (max(0, math.floor(side)) for side in everywhere.min(axis=0))
        right = min(size[1], max(left + 1, math.ceil(everywhere[:, 0].max())))
        bottom = min(size[0], max(top + 1, math.ceil(everywhere[:, 1].max())))
        if right <= left or bottom <= top:
            return
        fine = np.zeros(((bottom - top) * _FINE, (right - left) * _FINE), np.uint8)
        for polygon in points:
            places = ((polygon - (left, top)) * _FINE - 0.5) * (1 << _SHIFT)  # OpenCV counts from a pixel's middle
            cv2.fillPoly(fine, [np.rint(places).astype(np.int32)], 1, shift=_SHIFT)
        canvas[top:bottom, left:right] |= _mostly(fine, _FINE)


@dataclass(frozen=True, slots=True)
class RunLengths:
    """Runs of pixels of an image, column by column, beginning with those outside.

    Attributes:
        ends: Where each run ends, in pixels.
        height: Rows of the image.
        width: Columns of the image.
        part: Left, top, right and bottom of the film in the image, as shares of the image: a film may be a part of it.
    """

    ends: NDArray[np.int64]
    height: int
    width: int
    part: Shares = (0.0, 0.0, 1.0, 1.0)

    def draw_on(self, canvas: Mask) -> None:
        """Set the pixels of (H, W) of which at least half lies inside; at least one of an outline within the film."""
        inside = np.flatnonzero(np.diff(self.ends, prepend=0)[1::2]) * 2 + 1
        if not len(inside):
            return
        first, last = int(self.ends[inside[0] - 1]) // self.height, -(-int(self.ends[inside[-1]]) // self.height)
        window = self._columns(first, last)
        used = np.flatnonzero(window.any(axis=1))
        rows = _Sampling.of(self.part[1], self.part[3], canvas.shape[0], self.height, int(used[0]), int(used[-1]) + 1)
        columns = _Sampling.of(self.part[0], self.part[2], canvas.shape[1], self.width, first, last)
        if rows is None or columns is None:
            return
        fine = window[np.ix_(rows.cells, np.clip(columns.cells - first, 0, last - first - 1))]
        fine = fine & columns.inside(first, last)[None, :] & rows.inside(int(used[0]), int(used[-1]) + 1)[:, None]
        canvas[rows.slice, columns.slice] |= _mostly(fine.astype(np.uint8), rows.factor, columns.factor)

    def _columns(self, first: int, last: int) -> Mask:
        """Columns `first` to before `last` of the image."""
        ends = np.clip(self.ends, first * self.height, last * self.height)
        values = np.arange(len(ends)) % 2 == 1
        flat = np.repeat(values, np.diff(ends, prepend=first * self.height))
        return flat.reshape(last - first, self.height).T


Outline = Polygons | RunLengths


def parse_outline(written: Any, size: tuple[int, int], part: Shares) -> Outline | None:
    """Make an outline of COCO's polygons or run lengths.

    Args:
        written: A list of polygons x1, y1, x2, y2, ... in pixels, or a mapping with `size` (height, width) and
            `counts`, a list or COCO's compressed text; None = there is none.
        size: (width, height) of the image in pixels.
        part: Left, top, right and bottom of the film in the image, as shares of the image.

    Raises:
        ValueError: The run lengths are not of an image of that size.
    """
    if written is None:
        return None
    left, top, right, bottom = part
    if isinstance(written, list):
        scale = (size[0] * (right - left), size[1] * (bottom - top))
        origin = (left / (right - left), top / (bottom - top))
        corners = (np.clip(np.reshape(points, (-1, 2)), 0, size) for points in written)
        return Polygons(tuple(points / scale - origin for points in corners))
    height, width = written["size"]
    if (width, height) != size:
        raise ValueError("run lengths of an image of another size")
    counts = written["counts"]
    runs = parse_counts(counts) if isinstance(counts, str) else np.asarray(counts, np.int64)
    if not len(runs) or int(runs.min()) < 0 or int(runs.max()) > height * width or int(runs.sum()) != height * width:
        raise ValueError("run lengths that do not add up to the pixels of the image")
    return RunLengths(np.cumsum(runs), height, width, part)


def parse_counts(text: str) -> NDArray[np.int64]:
    """Read COCO's compressed run lengths (`rleFrString` of pycocotools).

    Each number is written five bits a character, the lowest first, with a sixth bit where more follow, signed; from
    the fourth on it is the difference from the number two places before.

    Raises:
        ValueError: It is no such text.
    """
    codes = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("run lengths that cannot be read")
    starts = np.flatnonzero(np.concatenate([[True], codes[:-1] & 32 == 0]))
    lengths = np.diff(starts, append=len(codes))
    if lengths.max() > 8:
        raise ValueError("run lengths that cannot be read")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((codes & 31) << shifts, starts)
    negative = codes[starts + lengths - 1] & 16 != 0
    numbers = np.where(negative, numbers - (np.int64(1) << (5 * lengths)), numbers)
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def fill_box(canvas: Mask, box: Shares) -> None:
    """Set all pixels of (H, W) that a box touches.

    Args:
        canvas: What is drawn on.
        box: x1, y1, x2, y2 as shares of the width and height.
    """
    height, width = canvas.shape
    left, top = math.floor(box[0] * width + _EDGE), math.floor(box[1] * height + _EDGE)
    right, bottom = math.ceil(box[2] * width - _EDGE), math.ceil(box[3] * height - _EDGE)
    canvas[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True


def outline_area(outline: Outline, pixels: tuple[float, float]) -> float:
    """Area of an outline: of polygons by the shoelace formula.

    Args:
        outline: Which.
        pixels: Width and height of the film in the unit in which the area is wanted.
    """
    if isinstance(outline, RunLengths):
        runs = np.diff(outline.ends, prepend=0)
        left, top, right, bottom = outline.part
        share = float(runs[1::2].sum()) / (outline.height * outline.width)
        return share / ((right - left) * (bottom - top)) * pixels[0] * pixels[1]
    return sum(_shoelace(corners) for corners in outline.corners) * pixels[0] * pixels[1]


def _shoelace(corners: NDArray[np.float64]) -> float:
    x, y = corners.T
    return abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2


def _mostly(fine: NDArray[np.uint8], down: int, across: int | None = None) -> Mask:
    """Which blocks of a fine mask are at least half full, or as full as any where none is."""
    across = across or down
    height, width = fine.shape[0] // down, fine.shape[1] // across
    share = fine.reshape(height, down, width, across).mean(axis=(1, 3), dtype=np.float32)
    most: Mask = (share >= min(0.5, float(share.max()))) & (share > 0)
    return most


@dataclass(frozen=True, slots=True)
class _Sampling:
    """Which cells of an image are looked at for which pixels of a canvas, in one direction."""

    slice: slice
    factor: int
    cells: NDArray[np.int64]

    @classmethod
    def of(cls, low: float, high: float, pixels: int, cells: int, first: int, last: int) -> "_Sampling | None":
        """Look for the pixels that cells `first` to before `last` touch; None where there is none.

        Args:
            low: Where the canvas begins, as a share of the image.
            high: Where it ends.
            pixels: Of the canvas.
            cells: Of the image.
            first: The first cell that matters.
            last: The one after the last that matters.
        """
        cells_a_pixel = (high - low) * cells / pixels
        begin = max(0, math.floor((first - low * cells) / cells_a_pixel + _EDGE))
        end = min(pixels, math.ceil((last - low * cells) / cells_a_pixel - _EDGE))
        if end <= begin:
            return None
        factor = min(_FINEST, max(1, math.ceil(cells_a_pixel - _EDGE)))
        middles = low * cells + (begin + (np.arange((end - begin) * factor) + 0.5) / factor) * cells_a_pixel
        return cls(slice(begin, end), factor, np.clip(np.floor(middles).astype(np.int64), 0, cells - 1))

    def inside(self, first: int, last: int) -> Mask:
        """Which of the cells are among `first` to before `last`."""
        found: Mask = (self.cells >= first) & (self.cells < last)
        return found
