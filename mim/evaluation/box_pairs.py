"""Boxes of the same image and class put together, and how much they overlap."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mim.evaluation.bootstrap import Floats, Integers
from mim.evaluation.detections import Searched


@dataclass(frozen=True, eq=False)
class Pairs:
    """Every detection beside every lesion of its image and label, P pairs.

    Attributes:
        detection: (P,) place among the detections.
        lesion: (P,) place among the lesions.
        iou: (P,) intersection over union.
        inside: (P,) whether the centre of the detection lies in the lesion.
        distance: (P,) from centre to centre in pixels.
    """

    detection: Integers
    lesion: Integers
    iou: Floats
    inside: npt.NDArray[np.bool_]
    distance: Floats


def pair_boxes(searched: Searched) -> Pairs:
    """Pair detections with the lesions of the same image and label."""
    found, lesions = searched.detections, searched.lesions
    labels = {name: place for place, name in enumerate(dict.fromkeys([*found.label, *lesions.label]))}
    of_found = found.image * len(labels) + np.array([labels[name] for name in found.label], dtype=np.int64)
    of_lesion = searched.lesion_image * len(labels) + np.array([labels[name] for name in lesions.label], dtype=np.int64)
    order = np.argsort(of_lesion, kind="stable")
    starts = np.searchsorted(of_lesion[order], of_found, side="left")
    counts = np.searchsorted(of_lesion[order], of_found, side="right") - starts
    detection = np.repeat(np.arange(len(of_found)), counts)
    within = np.arange(len(detection)) - np.repeat(np.cumsum(counts) - counts, counts)
    lesion = order[np.repeat(starts, counts) + within]
    first, second = found.boxes[detection], lesions.boxes[lesion]
    centre = (first[:, :2] + first[:, 2:]) / 2
    middle = (second[:, :2] + second[:, 2:]) / 2
    inside = ((centre >= second[:, :2]) & (centre < second[:, 2:])).all(axis=1)
    distance: Floats = np.hypot(*(centre - middle).T)
    return Pairs(detection, lesion, overlap(first, second), inside, distance)


def overlap(first: Floats, second: Floats) -> Floats:
    """Intersection over union of boxes (P, 4) with boxes (P, 4), to the last digit as COCO computes it."""
    sizes = first[:, 2:] - first[:, :2], second[:, 2:] - second[:, :2]
    # COCO keeps corner and size, so its far corner is their sum
    far = np.minimum(first[:, :2] + sizes[0], second[:, :2] + sizes[1])
    shared = np.maximum(far - np.maximum(first[:, :2], second[:, :2]), 0).prod(axis=1)
    result: Floats = shared / (sizes[0].prod(axis=1) + sizes[1].prod(axis=1) - shared)
    return result
