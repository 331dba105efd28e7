"""COCO's average precision and recall: values by faster-coco-eval, intervals by the same rules under weights.

AP is the mean over ten IoU thresholds from 0.50 to 0.95 (and over the labels) of precision at 101 levels of recall;
AP50 and AP75 are those of one threshold; AR is the recall of the 100 highest scores of an image and label, mean over
the ten thresholds. By size, only lesions whose area lies in the range count (Lin et al. 2014, and COCO's evaluation).

What is matched to what depends on one image alone. So it is found once, and a resample of patients only weighs it.
Detections of equal score stand in the order of the table, in resamples too.
"""

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster

from mim.evaluation.bootstrap import Floats, Integers, Statistic
from mim.evaluation.box_pairs import Pairs, pair_boxes
from mim.evaluation.detections import Searched

Flags = npt.NDArray[np.bool_]
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100
SIZES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
)
"""Areas in square pixels of the image given, both ends included."""
NAMES = ("ap", "ap50", "ap75", "ar")


def coco_names(sizes: Mapping[str, tuple[float, float]] = SIZES) -> tuple[str, ...]:
    """Names of the figures: AP, AP50, AP75, AR, and AR of each size."""
    return (*NAMES, *(f"ar_{size}" for size in sizes))


def coco_values(searched: Searched, sizes: Mapping[str, tuple[float, float]] = SIZES) -> dict[str, float]:
    """Compute COCO's figures with faster-coco-eval; NaN where no lesion counts.

    Args:
        searched: Images with detections and lesions.
        sizes: Least and largest area of each size, in square pixels.
    """
    labels, found, there = _coded(searched)
    ranges = {name: list(limits) for name, limits in sizes.items()}
    truth = COCO()
    truth.dataset = {
        "images": [{"id": place} for place in range(len(searched.detections))],
        "categories": [{"id": number, "name": name} for number, name in enumerate(labels, 1)],
        "annotations": _annotations(searched.lesion_image, searched.lesions.boxes, there),
    }
    results = COCO()
    results.dataset = truth.dataset | {
        "annotations": _annotations(searched.detections.image, searched.detections.boxes, found)
    }
    for own, score in zip(results.dataset["annotations"], searched.detections.score.tolist(), strict=True):
        own["score"] = score
    truth.createIndex()
    results.createIndex()
    evaluation = COCOeval_faster(truth, results, "bbox", ranges=ranges, print_function=_silent)
    evaluation.params.maxDets = [MOST]  # no figure of ours is of one box an image, or of ten
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]  # (T, R, K, A, M), (T, K, A, M)
    places = {name: place for place, name in enumerate(evaluation.params.areaRngLbl)}
    parts = {
        "ap": precision[:, :, :, places["all"], -1],
        "ap50": precision[0, :, :, places["all"], -1],
        "ap75": precision[5, :, :, places["all"], -1],
        "ar": recall[:, :, places["all"], -1],
        **{f"ar_{size}": recall[:, :, places[size], -1] for size in sizes},
    }
    return {name: float(part[part > -1].mean()) if (part > -1).any() else float("nan") for name, part in parts.items()}


def coco_statistic(searched: Searched, sizes: Mapping[str, tuple[float, float]] = SIZES) -> Statistic:
    """COCO's figures under integer weights of the images: (R, figures), in the order of `coco_names`.

    Args:
        searched: Images with detections and lesions.
        sizes: Least and largest area of each size, in square pixels.
    """
    _, found, there = _coded(searched)
    lesion_image = searched.lesion_image
    ranked = _ranked(searched, found)
    pairs = pair_boxes(searched)
    area = (searched.lesions.boxes[:, 2:] - searched.lesions.boxes[:, :2]).prod(axis=1)
    ranges = {"all": (0.0, np.inf), **sizes}
    counted = {name: (area >= low) & (area <= high) for name, (low, high) in ranges.items()}
    matched = {name: _match(pairs, ranked, ~inside) for name, inside in counted.items()}
    with_lesions = sorted(set(there.tolist()))
    precise = [
        _precision_statistic(
            searched.detections.image[ranked[found[ranked] == number]],
            matched["all"][0][:, ranked[found[ranked] == number]],
            lesion_image[there == number],
        )
        for number in with_lesions
    ]
    recalls = [
        [_recall_statistic(lesion_image, matched[name][1], inside & (there == number)) for number in with_lesions]
        for name, inside in counted.items()
    ]

    def statistic(weights: Integers) -> Floats:
        if not precise:
            return np.full((len(weights), len(NAMES) + len(sizes)), np.nan)
        precision = _mean(np.stack([own(weights) for own in precise]))  # (R, thresholds)
        columns = [precision.mean(axis=1), precision[:, 0], precision[:, 5]]
        columns += [_mean(np.stack([own(weights) for own in of_size])) for of_size in recalls]
        return np.stack(columns, axis=1)

    return statistic


def _coded(searched: Searched) -> tuple[list[str], Integers, Integers]:
    """Names of the labels, and the number from 1 of each detection's and each lesion's."""
    labels = sorted({*searched.detections.label, *searched.lesions.label})
    numbers = {name: number for number, name in enumerate(labels, 1)}
    found, there = (
        np.array([numbers[name] for name in table], dtype=np.int64)
        for table in (searched.detections.label, searched.lesions.label)
    )
    return labels, found, there


def _annotations(image: Integers, boxes: Floats, category: Integers) -> list[dict[str, Any]]:
    sizes = boxes[:, 2:] - boxes[:, :2]
    corners, areas = np.concatenate([boxes[:, :2], sizes], axis=1).tolist(), sizes.prod(axis=1).tolist()
    rows = zip(image.tolist(), corners, areas, category.tolist(), strict=True)
    return [
        {"id": number, "image_id": own, "bbox": box, "area": area, "category_id": label, "iscrowd": 0}
        for number, (own, box, area, label) in enumerate(rows, 1)
    ]


def _silent(*_: object) -> None:
    """Say nothing: faster-coco-eval tells its progress otherwise."""


def _ranked(searched: Searched, found: Integers) -> Integers:
    """Detections that count, highest score first; of an image and label the highest hundred."""
    image, score = searched.detections.image, searched.detections.score
    order = np.lexsort((-score, found, image))  # ties stand as they are in the table
    keys = image[order] * (found.max(initial=0) + 1) + found[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.empty(0, np.int64)
    within = np.arange(len(keys)) - np.repeat(starts, np.diff(np.r_[starts, len(keys)]))
    kept = order[within < MOST]
    return kept[np.argsort(-score[kept], kind="stable")]


def _match(pairs: Pairs, ranked: Integers, ignored: Flags) -> tuple[Flags, Flags]:
    """Match detections to lesions as COCO does, at each threshold.

    In the order of their scores, each takes the lesion left of largest IoU (of equal ones the last); lesions that are
    ignored only where none of the others is left.

    Returns:
        (T, N) whether a detection has a lesion that counts, and (T, K) whether a lesion that counts has a detection.
    """
    count = int(max(pairs.detection.max(initial=-1), ranked.max(initial=-1))) + 1
    taken_by = np.zeros((len(THRESHOLDS), count), dtype=bool)
    taken = np.zeros((len(THRESHOLDS), len(ignored)), dtype=bool)
    near = np.flatnonzero(pairs.iou >= THRESHOLDS[0] - 1e-9)
    rank = np.full(count, -1)
    rank[ranked] = np.arange(len(ranked))
    near = near[rank[pairs.detection[near]] >= 0]
    lesion = pairs.lesion[near]
    near = near[np.lexsort((lesion, ignored[lesion], rank[pairs.detection[near]]))]
    own = pairs.detection[near]
    starts = np.flatnonzero(np.r_[True, own[1:] != own[:-1]]) if len(own) else np.empty(0, np.int64)
    least = np.minimum(THRESHOLDS, 1 - 1e-10)
    for start, end in pairwise((*starts.tolist(), len(own))):
        some = near[start:end]
        lesions, iou, aside = pairs.lesion[some], pairs.iou[some], ignored[pairs.lesion[some]]
        free = ~taken[:, lesions] & (iou >= least[:, None])  # (T, lesions near)
        free &= ~aside | ~(free & ~aside).any(axis=1, keepdims=True)
        chosen = len(some) - 1 - np.argmax(np.where(free, iou, -1)[:, ::-1], axis=1)
        at = np.flatnonzero(free.any(axis=1))
        taken[at, lesions[chosen[at]]] = True
        taken_by[at, own[start]] = ~aside[chosen[at]]
    return taken_by, taken & ~ignored


def _precision_statistic(image: Integers, right: Flags, lesion_image: Integers) -> Statistic:
    """Mean precision over the levels of recall at each threshold, (R, T), for one label; NaN without lesions.

    Args:
        image: (D,) image of each detection, highest score first.
        right: (T, D) whether it has a lesion.
        lesion_image: (K,) image of each lesion.
    """
    places = [np.flatnonzero(row) for row in right]

    def statistic(weights: Integers) -> Floats:
        own = np.take(weights, image, axis=1)
        called, lesions = np.cumsum(own, axis=1), weights[:, lesion_image].sum(axis=1)
        result = np.zeros((len(weights), len(places)))
        for threshold, at in enumerate(places):
            found = np.cumsum(own[:, at], axis=1)
            precision = found / (called[:, at] + np.spacing(1))
            best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            recall = found / np.maximum(lesions, 1)[:, None]
            for row in range(len(weights)):
                level = np.searchsorted(recall[row], RECALLS, side="left")
                reached = level < len(at)
                result[row, threshold] = best[row, level[reached]].sum() / len(RECALLS)
        result[lesions == 0] = np.nan
        return result

    return statistic


def _recall_statistic(lesion_image: Integers, matched: Flags, counted: Flags) -> Statistic:
    """Share of the lesions that are found, mean over the thresholds, (R,); NaN where none counts."""
    images = lesion_image[counted]
    share = matched[:, counted].mean(axis=0)

    def statistic(weights: Integers) -> Floats:
        own = np.take(weights, images, axis=1)
        total = own.sum(axis=1)
        return np.where(total > 0, (own @ share) / np.maximum(total, 1), np.nan)

    return statistic


def _mean(values: Floats) -> Floats:
    """Mean over the first axis of the values that are numbers; NaN where there are none."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    mean: Floats = np.where(count > 0, np.where(known, values, 0).sum(axis=0) / np.maximum(count, 1), np.nan)
    return mean
