"""Percentile intervals from resampling patients, with every resample held as integer weights of the films.

A resample in which a patient was drawn three times weighs each of his films by three. Scores are sorted once; a
resample then costs a few sums, and gives exactly what the written-out resample would.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mim.errors import MimError

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Statistic = Callable[[Integers], Floats]
"""From weights (R, N) of N films in R resamples to R values; NaN where a resample does not define one."""

WEIGHTS_AT_A_TIME = 2**17
"""Largest number of weights held at once: 1 MiB of integers, which stays in a processor's cache."""
ROUNDING = 1e-9
"""How far a product such as 0.1 x 30 may lie from the whole number that it stands for."""


@dataclass(frozen=True)
class Resampled:
    """Values of each statistic over the resamples that were kept, and how many were dropped."""

    values: Mapping[str, Floats]
    dropped: int


def patient_weights(patients: Sequence[str], resamples: int, seed: int) -> Iterator[Integers]:
    """Draw as many patients as there are, with replacement, and weigh each film by how often its patient was drawn.

    Args:
        patients: N names, one a film.
        resamples: How many times.
        seed: What the draws follow from.

    Yields:
        Blocks of weights (r, N); r adds up to `resamples`.
    """
    names, films = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
    alone = bool(np.array_equal(films, np.arange(len(names))))
    generator = np.random.default_rng(seed)
    block = max(1, WEIGHTS_AT_A_TIME // max(1, len(patients)))
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = generator.integers(len(names), size=(count, len(names)))
        drawn += len(names) * np.arange(count)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=count * len(names)).reshape(count, len(names))
        yield counts if alone else np.take(counts, films, axis=1)


def auroc_statistic(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Statistic:
    """Area under the ROC curve under integer weights.

    The share of (positive, negative) pairs in the right order, ties counting one half (Hanley and McNeil 1982). All
    sums are of integers, so the result is exact up to the last division.

    Args:
        labels: (N,) of 0 and 1.
        scores: (N,); equal scores are ties.
    """
    target, values = np.asarray(labels, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    positives, negatives = np.flatnonzero(target == 1), np.flatnonzero(target != 1)
    negatives = negatives[np.argsort(values[negatives], kind="stable")]
    positives = positives[np.argsort(values[positives], kind="stable")]
    below = np.searchsorted(values[negatives], values[positives], side="left")
    not_above = np.searchsorted(values[negatives], values[positives], side="right")
    ties = bool((below != not_above).any())

    def statistic(weights: Integers) -> Floats:
        of_negatives = np.take(weights, negatives, axis=1)
        of_positives = np.take(weights, positives, axis=1)
        passed = np.zeros((len(weights), len(negatives) + 1), dtype=np.int64)  # weight of the lowest n negatives
        np.cumsum(of_negatives, axis=1, out=passed[:, 1:])
        first = np.take(passed, below, axis=1)
        second = np.take(passed, not_above, axis=1) if ties else first
        doubled = np.einsum("rp,rp->r", of_positives, first) + np.einsum("rp,rp->r", of_positives, second)
        return divide(doubled, 2 * of_positives.sum(axis=1) * passed[:, -1])

    return statistic


def sensitivity_at_statistic(labels: npt.ArrayLike, scores: npt.ArrayLike, specificity: float) -> Statistic:
    """Largest sensitivity on the ROC curve at a specificity of at least `specificity`, under integer weights.

    The threshold is read anew from each resample, among the scores met and the one that calls nothing positive.

    Args:
        labels: (N,) of 0 and 1.
        scores: (N,); equal scores are one step.
        specificity: From 0 to 1.
    """
    order, groups = _sorted_groups(-np.asarray(scores, dtype=np.float64))
    positive = np.asarray(labels, dtype=np.int64)[order]

    def statistic(weights: Integers) -> Floats:
        ordered = np.take(weights, order, axis=1)
        found = np.cumsum(np.add.reduceat(ordered * positive, groups, axis=1), axis=1)  # (R, distinct scores)
        alarms = np.cumsum(np.add.reduceat(ordered * (1 - positive), groups, axis=1), axis=1)
        allowed = (1 - specificity) * alarms[:, -1:] + ROUNDING
        reached = np.max(np.where(alarms <= allowed, found, 0), axis=1)
        result = divide(reached, found[:, -1])
        result[alarms[:, -1] == 0] = np.nan
        return result

    return statistic


def average_precision_statistic(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Statistic:
    """Average precision under integer weights: precision at each distinct score times the recall gained there.

    Args:
        labels: (N,) of 0 and 1.
        scores: (N,); equal scores are one step.
    """
    order, groups = _sorted_groups(-np.asarray(scores, dtype=np.float64))
    positive = np.asarray(labels, dtype=np.int64)[order]

    def statistic(weights: Integers) -> Floats:
        ordered = weights[:, order]
        gained = np.add.reduceat(ordered * positive, groups, axis=1)  # (R, distinct scores)
        called = np.cumsum(np.add.reduceat(ordered, groups, axis=1), axis=1)
        found = np.cumsum(gained, axis=1)
        precision = found / np.maximum(called, 1)
        return divide(np.sum(gained * precision, axis=1), found[:, -1])

    return statistic


def mean_statistic(values: npt.ArrayLike, among: npt.ArrayLike | None = None) -> Statistic:
    """Mean of one number a film, over the films `among` (N booleans; None = all)."""
    share = np.asarray(values, dtype=np.float64)
    counted = np.ones(len(share)) if among is None else np.asarray(among, dtype=np.float64)

    def statistic(weights: Integers) -> Floats:
        return divide(weights @ (share * counted), weights @ counted)

    return statistic


def ratio_statistic(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Statistic:
    """Weighted sum of one number a film over that of another: predictive values, F1, costs.

    Args:
        numerator: (N,).
        denominator: (N,); a resample in which it adds up to 0 has no value.
    """
    above, below = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)

    def statistic(weights: Integers) -> Floats:
        return divide(weights @ above, weights @ below)

    return statistic


def resample_patients(
    labels: npt.ArrayLike | None,
    patients: Sequence[str],
    statistics: Mapping[str, Statistic],
    *,
    resamples: int,
    seed: int,
) -> Resampled:
    """Compute statistics over resamples of whole patients.

    Where the films are of both classes, resamples with only one of them are dropped for every statistic, and counted.

    Args:
        labels: (N,) of 0 and 1; None = there are no classes, and no resample is dropped.
        patients: N names, one a film.
        statistics: What to compute.
        resamples: How many resamples are drawn.
        seed: What the draws follow from.

    Raises:
        MimError: Fewer than one resample asked for, or labels and patients of different lengths.
    """
    positive = np.zeros(len(patients), np.int64) if labels is None else np.asarray(labels, dtype=np.int64)
    if resamples < 1:
        raise MimError(f"bootstrap: {resamples} resamples asked for; ask for at least 1")
    if len(positive) != len(patients) or not len(positive):
        raise MimError(f"bootstrap: {len(positive)} labels and {len(patients)} patients; give one of each a film")
    both = 0 < positive.sum() < len(positive)
    collected: dict[str, list[Floats]] = {name: [] for name in statistics}
    dropped = 0
    for block in patient_weights(patients, resamples, seed):
        positives = block @ positive
        keep = ((positives > 0) & (positives < block.sum(axis=1))) | (not both)
        dropped += int(np.count_nonzero(~keep))
        for name, statistic in statistics.items():
            collected[name].append(statistic(block[keep]))
    return Resampled({name: np.concatenate(parts) for name, parts in collected.items()}, dropped)


def percentile_interval(values: Floats, confidence: float) -> tuple[float, float] | None:
    """Equal-tailed percentile interval of the values that are numbers; None where there are none.

    Raises:
        MimError: A confidence that is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise MimError(f"confidence is {confidence}; give a number between 0 and 1, such as 0.95")
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _sorted_groups(keys: Floats) -> tuple[Integers, Integers]:
    """Order of the keys, ascending, and where each run of equal keys starts in that order."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def divide(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Floats:
    """Divide; NaN where the denominator is 0."""
    below = np.asarray(denominator, dtype=np.float64)
    result: Floats = np.full(below.shape, np.nan)
    np.divide(numerator, below, out=result, where=below != 0)
    return result
