"""Does a score of 0.3 mean that three in ten are sick? Errors, recalibration and temperature.

- ECE: mean over the films of |share of positives - mean score| in their bin (Naeini, Cooper and Hauskrecht 2015), with
  bins of equal width on [0, 1] or of equal mass; the bins are those of the whole set in every resample. A value lies
  in the bin below where it meets an edge, as in scikit-learn's `calibration_curve`.
- Slope and intercept: logit P(positive) = intercept + slope x logit(score) (Cox 1958); 1 and 0 are right. A slope
  below 1 says that the scores are too extreme.
- Calibration in the large: the intercept where the slope is held at 1; above 0, the scores are too low on the whole.
- Temperature T: logit P = logit(score) / T, by the largest likelihood (Guo et al. 2017); from the validation films.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import softmax

from mim.evaluation.bootstrap import Floats, Integers, Statistic, divide

BINS = 10
SMALLEST = 1e-7
"""Scores are moved to [SMALLEST, 1 - SMALLEST] before their logit is taken."""
STEPS = 60
LARGEST_STEP = 3.0
CONVERGED = 1e-9
COOLEST, HOTTEST = 1e-3, 1e3
"""Between which a temperature of several classes is looked for."""


def logit(scores: npt.ArrayLike) -> Floats:
    """Log odds of scores, moved to [SMALLEST, 1 - SMALLEST] first."""
    inside = np.clip(np.asarray(scores, dtype=np.float64), SMALLEST, 1 - SMALLEST)
    result: Floats = np.log(inside) - np.log1p(-inside)
    return result


def bins_of(scores: npt.ArrayLike, kind: Literal["width", "mass"], bins: int = BINS) -> Integers:
    """Number of the bin of each score, from 0.

    Args:
        scores: (N,) in [0, 1].
        kind: Bins of equal width on [0, 1], or between the quantiles of the scores.
        bins: How many; some may be empty.
    """
    values = np.asarray(scores, dtype=np.float64)
    shares = np.linspace(0, 1, bins + 1)
    edges = shares if kind == "width" or not len(values) else np.quantile(values, shares)
    return np.searchsorted(edges[1:-1], values, side="left")


def calibration_error_statistic(labels: npt.ArrayLike, scores: npt.ArrayLike, members: Integers) -> Statistic:
    """Expected calibration error under integer weights, with bins that stay as they are.

    Args:
        labels: (N,) of 0 and 1.
        scores: (N,) in [0, 1].
        members: (N,) numbers of the bins.
    """
    excess = np.asarray(labels, dtype=np.float64) - np.asarray(scores, dtype=np.float64)
    parts = np.zeros((len(excess), int(members.max(initial=0)) + 1))
    parts[np.arange(len(excess)), members] = excess  # (N, bins)

    def statistic(weights: Integers) -> Floats:
        return divide(np.abs(weights @ parts).sum(axis=1), weights.sum(axis=1))

    return statistic


def logistic_statistic(labels: npt.ArrayLike, predictors: Floats, offset: Floats | None = None) -> Statistic:
    """Coefficients of a logistic regression by largest likelihood under integer weights, by Newton's method.

    Args:
        labels: (N,) of 0 and 1.
        predictors: (N, P).
        offset: (N,) that is added to the log odds; None = 0.

    Returns:
        A statistic that gives (R, P); NaN where no finite coefficients are the likeliest.
    """
    target = np.asarray(labels, dtype=np.float64)
    base = np.zeros(len(target)) if offset is None else offset
    count = predictors.shape[1]
    products = (predictors[:, :, None] * predictors[:, None, :]).reshape(len(target), count**2)

    def statistic(weights: Integers) -> Floats:
        found = np.zeros((len(weights), count))
        result = np.full_like(found, np.nan)
        left = np.arange(len(weights))
        weighted = weights.astype(np.float64)
        for _ in range(STEPS):
            odds = np.clip(found[left] @ predictors.T + base, -500, 500)
            chance = 1 / (1 + np.exp(-odds))  # (R left, N)
            slope = (weighted[left] * (target - chance)) @ predictors
            bend = ((weighted[left] * chance * (1 - chance)) @ products).reshape(-1, count, count)
            regular = np.linalg.cond(bend) < 1e14 if len(left) else np.zeros(0, dtype=bool)
            left, slope, bend = left[regular], slope[regular], bend[regular]
            if not len(left):
                break
            step = np.linalg.solve(bend, slope[:, :, None])[:, :, 0]
            largest = np.abs(step).max(axis=1)
            found[left] += step * np.minimum(1, LARGEST_STEP / np.maximum(largest, 1e-300))[:, None]
            done = largest < CONVERGED
            result[left[done]] = found[left[done]]
            left = left[~done]
        return result

    return statistic


def recalibration_statistic(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Statistic:
    """Intercept and slope of logistic recalibration under integer weights, (R, 2).

    NaN where a score parts the classes without overlap, so that the slope would be infinite, or where one is missing.
    """
    odds, target = logit(scores), np.asarray(labels, dtype=np.int64) == 1
    fit = logistic_statistic(labels, np.stack([np.ones(len(odds)), odds], axis=1))

    def statistic(weights: Integers) -> Floats:
        result = fit(weights)
        result[~_overlap(weights, odds, target)] = np.nan
        return result

    return statistic


def in_the_large_statistic(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Statistic:
    """Intercept with the slope held at 1, under integer weights; NaN where a class is missing."""
    odds, target = logit(scores), np.asarray(labels, dtype=np.int64)
    fit = logistic_statistic(labels, np.ones((len(odds), 1)), odds)

    def statistic(weights: Integers) -> Floats:
        positives = weights @ target
        return np.where((positives > 0) & (positives < weights.sum(axis=1)), fit(weights)[:, 0], np.nan)

    return statistic


@dataclass(frozen=True)
class Temperature:
    """What log odds are divided by; None with the reason where there is none."""

    value: float | None
    reason: str | None = None

    def scale(self, scores: npt.ArrayLike) -> Floats:
        """Scores after scaling; as they are where there is no temperature."""
        if self.value is None:
            return np.asarray(scores, dtype=np.float64)
        result: Floats = 1 / (1 + np.exp(-logit(scores) / self.value))
        return result


def fit_temperature(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Temperature:
    """Fit a temperature by largest likelihood.

    Args:
        labels: (N,) of 0 and 1, of films that the model was not trained on: the validation films.
        scores: (N,) in [0, 1].
    """
    target, odds = np.asarray(labels, dtype=np.int64), logit(scores)
    if not 0 < target.sum() < len(target):
        return Temperature(None, "the validation films are not of both classes")
    steepness = float(logistic_statistic(target, odds[:, None])(np.ones((1, len(target)), dtype=np.int64))[0, 0])
    if not np.isfinite(steepness):
        return Temperature(None, "no temperature is finite: the validation scores of each class lie on one side of 0.5")
    if steepness <= 0:
        return Temperature(None, "the validation scores do not rise with the label, so no temperature mends them")
    return Temperature(1 / steepness)


def scale_classes(probabilities: npt.ArrayLike, temperature: Temperature) -> Floats:
    """Probabilities (N, K) that add up to 1, after scaling; as they are where there is no temperature."""
    given = np.asarray(probabilities, dtype=np.float64)
    if temperature.value is None:
        return given
    scaled: Floats = softmax(np.log(np.clip(given, SMALLEST, 1)) / temperature.value, axis=1)
    return scaled


def fit_class_temperature(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Temperature:
    """Fit one temperature to classes that exclude each other, by largest likelihood (Guo et al. 2017).

    The likelihood of softmax(log p / T) is concave in 1 / T, so its slope is 0 at one T at most.

    Args:
        labels: (N,) places of the classes, of films that the model was not trained on: the validation films.
        probabilities: (N, K), which add up to 1.
    """
    target = np.asarray(labels, dtype=np.int64)
    given = np.asarray(probabilities, dtype=np.float64)
    if len(np.unique(target)) < 2:
        return Temperature(None, "the validation films are of fewer than two classes")
    odds = np.log(np.clip(given, SMALLEST, 1))
    right = odds[np.arange(len(target)), target]

    def slope(steepness: float) -> float:
        return float((right - (softmax(odds * steepness, axis=1) * odds).sum(axis=1)).sum())

    if slope(1 / HOTTEST) <= 0:
        return Temperature(None, "the validation scores do not rise with the label, so no temperature mends them")
    if (right >= odds.max(axis=1)).all() or slope(1 / COOLEST) > 0:
        return Temperature(None, "no temperature is finite: all validation films are called rightly")
    return Temperature(1 / float(brentq(slope, 1 / HOTTEST, 1 / COOLEST)))


def _overlap(weights: Integers, odds: Floats, positive: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether the scores of the classes overlap in each resample: then and only then is the slope finite."""
    drawn = weights > 0
    result: npt.NDArray[np.bool_] = np.ones(len(weights), dtype=bool)
    for low, high in ((positive, ~positive), (~positive, positive)):
        lowest = np.where(drawn & low, odds, np.inf).min(axis=1, initial=np.inf)
        highest = np.where(drawn & high, odds, -np.inf).max(axis=1, initial=-np.inf)
        result &= lowest < highest
    return result
