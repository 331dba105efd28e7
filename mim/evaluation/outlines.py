"""Outlines of masks over a film, as vector graphics: the truth from outside, what a model drew from inside."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from mim.evaluation.pictures import enlarge

Masks = npt.NDArray[np.bool_]
Kind = Literal["truth", "drawn"]

_FINE = 2  # an outline runs between pixels
_OUTSIDE = 3  # in these halves of a pixel


@dataclass(frozen=True)
class Outline:
    """The outlines of one class.

    Attributes:
        path: Of all its parts, in the form of SVG's `d`, in pixels of the picture.
        label: What is written beside each part: the number of the class; empty = there is only one.
        places: Where, x and y in pixels of the picture.
    """

    path: str
    label: str
    places: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Outlines:
    """The outlines of one kind over a film.

    Attributes:
        kind: `truth`, what a reader marked, or `drawn`, what the model drew.
        classes: Those that have any.
        parts: How many connected parts there are.
    """

    kind: Kind
    classes: tuple[Outline, ...]
    parts: int

    @property
    def said(self) -> str:
        """How many there are, in words."""
        what = "lesion outline" if self.kind == "truth" else "drawn part"
        return f"{self.parts} {what}{'' if self.parts == 1 else 's'}"


def outline_masks(kind: Kind, masks: Masks, shape: tuple[int, int]) -> tuple[Outlines, ...]:
    """Trace masks on a picture; nothing where they are empty.

    Args:
        kind: What they are.
        masks: (K, h, w) over the whole picture, of any size, a class each.
        shape: Height and width of the picture.
    """
    found = []
    parts = 0
    for number, mask in enumerate(masks, 1):
        contours = _trace(mask, shape, outside=kind == "truth")
        if contours:
            outer = [points for points, hole in contours if not hole]
            parts += len(outer)
            found.append(Outline(_path([p for p, _ in contours]), _label(number, masks), _places(outer, shape, kind)))
    return (Outlines(kind, tuple(found), parts),) if found else ()


def _label(number: int, masks: Masks) -> str:
    return str(number) if len(masks) > 1 else ""


def _trace(mask: Masks, shape: tuple[int, int], *, outside: bool) -> list[tuple[npt.NDArray[np.float64], bool]]:
    """Corners (N, 2) x, y of each contour, and whether it is that of a hole; none of a part is lost by the size."""
    fine = enlarge(_kept(mask, shape), (shape[0] * _FINE, shape[1] * _FINE)).astype(np.uint8)
    if outside:
        fine = cv2.dilate(fine, np.ones((2 * _OUTSIDE + 1, 2 * _OUTSIDE + 1), np.uint8))
    contours, family = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if family is None:
        return []
    return [
        ((points[:, 0].astype(np.float64) + 0.5) / _FINE, int(own[3]) >= 0)
        for points, own in zip(contours, family[0], strict=True)
    ]


def _kept(mask: Masks, shape: tuple[int, int]) -> Masks:
    """The mask at the size of the picture where that is smaller: a pixel of it is set where any under it is."""
    if mask.shape[0] <= shape[0] and mask.shape[1] <= shape[1]:
        return mask
    small = np.zeros(shape, dtype=bool)
    rows, columns = np.nonzero(mask)
    small[rows * shape[0] // mask.shape[0], columns * shape[1] // mask.shape[1]] = True
    return small


def _path(contours: Sequence[npt.NDArray[np.float64]]) -> str:
    return " ".join("M" + " L".join(f"{x:g} {y:g}" for x, y in points.tolist()) + " Z" for points in contours)


def _places(
    contours: Sequence[npt.NDArray[np.float64]], shape: tuple[int, int], kind: Kind
) -> tuple[tuple[float, float], ...]:
    """Where labels stand: above on the left of what a reader marked, below on the right of what was drawn."""
    places = []
    for points in contours:
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        x, y = (left - 2, top - 3) if kind == "truth" else (right + 1, bottom + 12)
        places.append((float(np.clip(x, 1, shape[1] - 9)), float(np.clip(y, 11, shape[0] - 2))))
    return tuple(places)
