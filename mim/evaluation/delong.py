"""DeLong's interval and test for areas under the ROC curve, for one film a patient and for several.

DeLong, DeLong and Clarke-Pearson 1988 take all films for independent. Obuchowski 1997 adds up a patient's films first,
so that films of one patient count as one draw; where every patient has one film, both are the same to the last digit.
The placements are found by sorting, as Sun and Xu 2014 do, not by comparing all pairs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from mim.errors import MimError
from mim.evaluation.bootstrap import Floats, Integers


@dataclass(frozen=True)
class DeLong:
    """Areas of one or more sets of scores on the same films, and their covariance.

    Attributes:
        areas: (K,) AUROC of each set of scores.
        covariance: (K, K) of the areas; None where fewer than two patients have a film of either class.
    """

    areas: Floats
    covariance: Floats | None

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Normal interval of the first area, cut to [0, 1]; None without a variance above 0.

        Raises:
            MimError: A confidence that is not between 0 and 1.
        """
        return self._normal(float(self.areas[0]), np.array([1.0] + [0.0] * (len(self.areas) - 1)), confidence, (0, 1))

    def difference(self, confidence: float) -> tuple[float, tuple[float, float] | None, float | None]:
        """Second area minus first: value, normal interval, and two-sided p of no difference.

        Interval and p are None where the variance is not above 0, as for the same order of the films.

        Raises:
            MimError: A confidence that is not between 0 and 1.
        """
        value = float(self.areas[1] - self.areas[0])
        contrast = np.array([-1.0, 1.0] + [0.0] * (len(self.areas) - 2))
        interval = self._normal(value, contrast, confidence, (-1, 1))
        if interval is None:
            return value, None, None
        return value, interval, math.erfc(abs(value) / self._deviation(contrast) / math.sqrt(2))

    def _deviation(self, contrast: Floats) -> float:
        variance = 0.0 if self.covariance is None else float(contrast @ self.covariance @ contrast)
        return math.sqrt(variance) if variance > 1e-18 else 0.0

    def _normal(
        self, value: float, contrast: Floats, confidence: float, bounds: tuple[float, float]
    ) -> tuple[float, float] | None:
        if not 0 < confidence < 1:
            raise MimError(f"confidence is {confidence}; give a number between 0 and 1, such as 0.95")
        deviation = self._deviation(contrast)
        if not deviation:
            return None
        half = NormalDist().inv_cdf((1 + confidence) / 2) * deviation
        return max(bounds[0], value - half), min(bounds[1], value + half)


def delong(labels: npt.ArrayLike, patients: Sequence[str], *scores: npt.ArrayLike) -> DeLong:
    """Areas under the ROC curves of one or more sets of scores of the same films, with their covariance.

    Args:
        labels: (N,) of 0 and 1, both met.
        patients: N names, one a film.
        *scores: (N,) each; equal scores are ties.

    Raises:
        MimError: Columns of different lengths, scores that are not finite, or films of one class only.
    """
    target = np.asarray(labels, dtype=np.int64).reshape(-1)
    sets = [np.asarray(column, dtype=np.float64).reshape(-1) for column in scores]
    if not sets or len(patients) != len(target) or any(len(column) != len(target) for column in sets):
        raise MimError("DeLong: labels, patients and scores must have one value a film each")
    if not all(np.isfinite(column).all() for column in sets):
        raise MimError("DeLong: a score is not a finite number; leave such films out first")
    if not 0 < target.sum() < len(target):
        raise MimError("DeLong: the films are of one class only, so there is no ROC curve")
    _, clusters = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
    positive = target == 1
    above, below = zip(*(_placements(column[positive], column[~positive]) for column in sets), strict=True)
    areas = np.array([placement.mean() for placement in above])
    covariance = _covariance(areas, np.stack(above), np.stack(below), clusters[positive], clusters[~positive])
    return DeLong(areas, covariance)


def _placements(positives: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    """Share of the negatives that each positive outscores, and of the positives above each negative; ties half."""
    low, high = np.sort(negatives), np.sort(positives)
    beaten = np.searchsorted(low, positives, "left") + np.searchsorted(low, positives, "right")
    passed = np.searchsorted(high, negatives, "left") + np.searchsorted(high, negatives, "right")
    return beaten / (2 * len(low)), 1 - passed / (2 * len(high))


def _covariance(
    areas: Floats, above: Floats, below: Floats, of_positives: Integers, of_negatives: Integers
) -> Floats | None:
    """Obuchowski's covariance of the areas, (K, K), from sums of the placements over each patient."""
    patients = int(max(of_positives.max(), of_negatives.max())) + 1
    with_positive, with_negative = len(np.unique(of_positives)), len(np.unique(of_negatives))
    if min(with_positive, with_negative) < 2:
        return None
    # (K, patients): sum of the placements of a patient's films minus what their number alone would give
    first = np.stack([np.bincount(of_positives, row - area, patients) for row, area in zip(above, areas, strict=True)])
    second = np.stack([np.bincount(of_negatives, row - area, patients) for row, area in zip(below, areas, strict=True)])
    positives, negatives = len(of_positives), len(of_negatives)
    own = with_positive / (with_positive - 1) * (first @ first.T) / positives**2
    own += with_negative / (with_negative - 1) * (second @ second.T) / negatives**2
    shared = patients / (patients - 1) * (first @ second.T) / (positives * negatives)
    covariance: Floats = own + shared + shared.T
    return covariance
