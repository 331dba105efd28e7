"""Boxes found in overlapping windows of an image, put together to boxes of the image."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torchvision.ops import batched_nms

from mim.evaluation.bootstrap import Floats, Integers

BORDER: Final = 1 / 64  # of a window's side: a box that ends so near its border may have been cut there
SAME_PART: Final = 0.5  # overlap (IoU) of what two windows both see, from which two boxes are of one object


@dataclass(frozen=True, eq=False)
class WindowBoxes:
    """Boxes found in windows of one image.

    Attributes:
        boxes: (N, 4) float64, xyxy in pixels of the image.
        score: (N,) float64.
        label: (N,) int64.
        window: (N,) int64, place of the window of each in `windows`.
        windows: (W, 4) float64, xyxy in pixels of the image.
        size: Height and width of the image.
    """

    boxes: Floats
    score: Floats
    label: Integers
    window: Integers
    windows: Floats
    size: tuple[int, int]

    def take(self, kept: npt.NDArray[np.generic]) -> Self:
        """Take boxes by their places, or by booleans; the windows stay."""
        boxes, score, label, window = (all_[kept] for all_ in (self.boxes, self.score, self.label, self.window))
        return type(self)(boxes, score, label, window, self.windows, self.size)


def merge_boxes(found: WindowBoxes, overlap: float, most: int) -> tuple[Floats, Floats, Integers]:
    """Put boxes of windows together, so that every object is marked once.

    Two boxes of a class are of one object where they overlap by more than `overlap` (non-maximum suppression), and
    where one of them ends at a border of its window that is none of the image: then they are compared by what both
    windows see, to where the cut box is taken to reach the border. Of such boxes
    1. a cut one goes where another window has the box whole, which takes over the higher score;
    2. several cut ones become the box around them all, with their highest score.
    What one window alone found is given back as it is.

    Args:
        found: The boxes.
        overlap: Of two boxes of a class with a larger IoU the one with the lower score is left out.
        most: Boxes of the image, at most.

    Returns:
        Boxes (K, 4) xyxy in pixels of the image, scores (K,), the highest first, and labels (K,).
    """
    if len(found.windows) > 1:
        found = _join_halves(_absorb(found))
        kept = batched_nms(*(torch.from_numpy(all_) for all_ in (found.boxes, found.score, found.label)), overlap)
        found = found.take(kept.numpy()[:most])
    height, width = found.size
    return found.boxes.clip(0, [width, height, width, height]), found.score, found.label


def _absorb(found: WindowBoxes) -> WindowBoxes:
    """Leave out cut boxes that another window has whole; those keep the higher score."""
    cut, other, alike = _pairs(found, ~_is_cut(found))
    order = np.argsort(-alike, kind="stable")
    gone, first = np.unique(cut[order], return_index=True)
    score = found.score.copy()
    np.maximum.at(score, other[order][first], found.score[gone])
    left = np.ones(len(score), dtype=bool)
    left[gone] = False
    return WindowBoxes(found.boxes, score, found.label, found.window, found.windows, found.size).take(left)


def _join_halves(found: WindowBoxes) -> WindowBoxes:
    """Replace cut boxes of one object by the box around them."""
    cut, other, _ = _pairs(found, _is_cut(found))
    count = len(found.score)
    links = coo_matrix((np.ones(len(cut)), (cut, other)), shape=(count, count))
    groups, group = connected_components(links, directed=False)
    first = np.unique(group, return_index=True)[1]
    boxes, score = np.empty((groups, 4)), np.full(groups, -np.inf)
    boxes[:, :2], boxes[:, 2:] = np.inf, -np.inf
    np.minimum.at(boxes[:, :2], group, found.boxes[:, :2])
    np.maximum.at(boxes[:, 2:], group, found.boxes[:, 2:])
    np.maximum.at(score, group, found.score)
    return WindowBoxes(boxes, score, found.label[first], found.window[first], found.windows, found.size)


def _open_sides(found: WindowBoxes) -> npt.NDArray[np.bool_]:
    """(N, 4): which sides of boxes may have been cut: those at a side of their window that is none of the image."""
    height, width = found.size
    inner = np.abs(found.windows - [0, 0, width, height]) > 0.5
    near = np.abs(found.boxes - found.windows[found.window]) <= _slack(found.windows)[found.window]
    return near & inner[found.window]


def _is_cut(found: WindowBoxes) -> npt.NDArray[np.bool_]:
    """(N,): which boxes may have been cut at all."""
    return np.asarray(_open_sides(found).any(axis=1), dtype=np.bool_)


def _slack(windows: Floats) -> Floats:
    """(W, 4): within how many pixels of each side of a window a box ends at it."""
    return BORDER * np.tile(windows[:, 2:] - windows[:, :2], 2)


def _pairs(found: WindowBoxes, partners: npt.NDArray[np.bool_]) -> tuple[Integers, Integers, Floats]:
    """Cut boxes, partners of their class in other windows that are of the same object, and how much they overlap."""
    sides = _open_sides(found)
    slack = _slack(found.windows) * [-1, -1, 1, 1]
    grown = found.windows + slack
    reach = np.where(sides, grown[found.window], found.boxes)  # an end that was cut is not known: it reaches outside
    cut, places = np.flatnonzero(_is_cut(found)), np.flatnonzero(partners)
    pairs: list[tuple[Integers, Integers, Floats]] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for window in np.unique(found.window[cut]).tolist():
        own = cut[found.window[cut] == window]
        shared = _common(grown[window], grown[found.window[places]])
        others = places[(found.window[places] != window) & (shared[:, 2:] > shared[:, :2]).all(axis=1)]
        shared = _common(grown[window], grown[found.window[others]])
        alike = _iou(_common(reach[own][:, None], shared), _common(reach[others], shared))
        alike[found.label[own][:, None] != found.label[others]] = 0
        mine, theirs = np.nonzero(alike >= SAME_PART)
        pairs.append((own[mine], others[theirs], alike[mine, theirs]))
    first, second, value = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return first, second, value


def _common(first: Floats, second: Floats) -> Floats:
    """What two boxes have in common, xyxy; empty where a far side lies before a near one."""
    low, high = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    return np.concatenate([low, high], axis=-1)


def _iou(first: Floats, second: Floats) -> Floats:
    """Intersection over union of boxes that broadcast, of which some may be empty."""
    shared, one, other = (
        (box[..., 2:] - box[..., :2]).clip(0).prod(axis=-1) for box in (_common(first, second), first, second)
    )
    union = one + other - shared
    result: Floats = np.divide(shared, union, out=np.zeros(np.shape(union)), where=union > 0)
    return result
