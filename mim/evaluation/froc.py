"""FROC: share of the lesions found against false positives an image (Bunch et al. 1977; CAMELYON16's rules).

A mark hits a lesion of its label where their boxes overlap enough, or where its centre lies in the lesion's box. It
counts for one lesion only: the one of largest overlap, or whose centre is nearest. A lesion is found at a threshold
where some mark that hits it has at least that score; further marks on it count neither for nor against. A mark that
hits nothing is a false positive. Images without lesions count like all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mim.errors import MimError
from mim.evaluation.bootstrap import WEIGHTS_AT_A_TIME, Floats, Integers, Statistic, divide
from mim.evaluation.box_pairs import Pairs
from mim.evaluation.detections import Searched

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class HitRule:
    """When a mark hits a lesion: where their IoU is at least `iou`, or, with None, by its centre.

    Raises:
        MimError: An overlap that is not above 0 and at most 1.
    """

    iou: float | None = 0.5

    def __post_init__(self) -> None:
        if self.iou is not None and not 0 < self.iou <= 1:
            raise MimError(f"hit rule: an IoU of {self.iou} was asked for; give a number above 0, at most 1")

    @property
    def title(self) -> str:
        """What the rule is called."""
        return "centre in the lesion" if self.iou is None else f"IoU at least {self.iou:g}"


@dataclass(frozen=True, eq=False)
class Hits:
    """What marks are worth, once it is known what they hit.

    Attributes:
        images: How many images were searched.
        lesion_score: (K,) largest score of a mark that hits each lesion; -inf where none does.
        lesion_image: (K,) place of each lesion's image.
        false_score: (F,) scores of the marks that hit nothing.
        false_image: (F,) place of each such mark's image.
    """

    images: int
    lesion_score: Floats
    lesion_image: Integers
    false_score: Floats
    false_image: Integers


@dataclass(frozen=True, eq=False)
class Froc:
    """The curve: at each distinct score, highest first.

    Attributes:
        thresholds: (S,) scores; marks with at least this score count.
        false_positives: (S,) false positives an image.
        sensitivity: (S,) share of the lesions found; NaN where there are no lesions.
    """

    thresholds: Floats
    false_positives: Floats
    sensitivity: Floats

    def at(self, rate: float) -> tuple[float | None, float]:
        """Lowest threshold with at most `rate` false positives an image, and the sensitivity there.

        The threshold is None, and the sensitivity 0, where even the highest score makes more of them.
        """
        within = int(np.searchsorted(self.false_positives, rate + 1e-12, side="right"))
        if not within:
            return None, float("nan") if len(self.sensitivity) and np.isnan(self.sensitivity[0]) else 0.0
        return float(self.thresholds[within - 1]), float(self.sensitivity[within - 1])

    def score(self, rates: Sequence[float] = RATES) -> float:
        """Mean sensitivity at these rates, on straight lines between the points of the curve, from (0, 0).

        This is CAMELYON16's and MONAI's score; beyond the last point it is the sensitivity there.
        """
        across = np.r_[0.0, self.false_positives]
        up = np.r_[np.nan if np.isnan(self.sensitivity).any() else 0.0, self.sensitivity]
        return float(np.interp(rates, across, up).mean())


def find_hits(searched: Searched, pairs: Pairs, rule: HitRule) -> Hits:
    """Decide which marks hit which lesions.

    Args:
        searched: Images with marks and lesions.
        pairs: What `pair_boxes` gave for them.
        rule: When a mark hits a lesion.
    """
    found = searched.detections
    hit = pairs.inside if rule.iou is None else pairs.iou >= rule.iou
    detection, lesion = pairs.detection[hit], pairs.lesion[hit]
    preference = pairs.distance[hit] if rule.iou is None else -pairs.iou[hit]
    order = np.lexsort((lesion, preference, detection))
    _, first = np.unique(detection[order], return_index=True)
    chosen = order[first]
    best = np.full(len(searched.lesions), -np.inf)
    np.maximum.at(best, lesion[chosen], found.score[detection[chosen]])
    missed = np.ones(len(found.score), dtype=bool)
    missed[detection] = False
    return Hits(len(found), best, searched.lesion_image, found.score[missed], found.image[missed])


def froc_curve(hits: Hits) -> Froc:
    """Compute the curve of all images."""
    thresholds, false_at, found_at = _steps(hits)
    false = np.cumsum(np.bincount(false_at, minlength=len(thresholds)))
    found = np.cumsum(np.bincount(found_at, minlength=len(thresholds)))
    lesions = np.full(len(thresholds), float(len(hits.lesion_score)))
    return Froc(thresholds, divide(false, np.full(len(thresholds), float(hits.images))), divide(found, lesions))


def froc_statistic(hits: Hits, rates: Sequence[float] = RATES) -> Statistic:
    """Sensitivity at each rate, and the score, under integer weights of the images: (R, rates + 1).

    The threshold at a rate is found anew in each resample.

    Args:
        hits: What marks are worth.
        rates: False positives an image.
    """
    thresholds, false_at, found_at = _steps(hits)
    reached = np.flatnonzero(hits.lesion_score > -np.inf)
    by_false, by_found = np.argsort(false_at, kind="stable"), np.argsort(found_at, kind="stable")
    steps = np.arange(len(thresholds))
    false_ends = np.searchsorted(false_at[by_false], steps, side="right")
    found_ends = np.searchsorted(found_at[by_found], steps, side="right")
    false_images, found_images = hits.false_image[by_false], hits.lesion_image[reached[by_found]]

    def some(weights: Integers) -> Floats:
        images, lesions = weights.sum(axis=1), weights[:, hits.lesion_image].sum(axis=1)
        false = _running(weights, false_images)[:, false_ends] / np.maximum(images, 1)[:, None]
        found = _running(weights, found_images)[:, found_ends] / np.maximum(lesions, 1)[:, None]
        result = np.full((len(weights), len(rates) + 1), np.nan)
        for row in np.flatnonzero((lesions > 0) & (images > 0)):
            curve = Froc(thresholds, false[row], found[row])
            result[row] = [*(curve.at(rate)[1] for rate in rates), curve.score(rates)]
        return result

    def statistic(weights: Integers) -> Floats:
        rows = max(1, WEIGHTS_AT_A_TIME // max(1, len(thresholds)))
        parts = [some(weights[start : start + rows]) for start in range(0, len(weights), rows)]
        return np.concatenate([np.empty((0, len(rates) + 1)), *parts])

    return statistic


def _steps(hits: Hits) -> tuple[Floats, Integers, Integers]:
    """Distinct scores, highest first, and from which of them each false mark and each lesion that is found counts."""
    found = hits.lesion_score[hits.lesion_score > -np.inf]
    down = np.unique(np.r_[-hits.false_score, -found])
    return -down, np.searchsorted(down, -hits.false_score), np.searchsorted(down, -found)


def _running(weights: Integers, images: Integers) -> Integers:
    """Running sums of weights in the order of these images, (R, n + 1), from 0."""
    sums = np.zeros((len(weights), len(images) + 1), dtype=np.int64)
    np.cumsum(np.take(weights, images, axis=1), axis=1, out=sums[:, 1:])
    return sums
