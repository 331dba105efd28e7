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

WEIGHTS_AT_A_TIME = 2**21
"""Largest number of weights held at once: 16 MiB of integers."""


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
    generator = np.random.default_rng(seed)
    block = max(1, WEIGHTS_AT_A_TIME // max(1, len(patients)))
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = generator.integers(len(names), size=(count, len(names)))
        drawn += len(names) * np.arange(count)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=count * len(names)).reshape(count, len(names))
        yield counts[:, films]


def auroc_statistic(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Statistic:
    """Area under the ROC curve under integer weights.

    The share of (positive, negative) pairs in the right order, ties counting one half (Hanley and McNeil 1982). All
    sums are of integers, so the result is exact up to the last division.

    Args:
        labels: (N,) of 0 and 1.
        scores: (N,); equal scores are ties.
    """
    order, groups = _sorted_groups(np.asarray(scores, dtype=np.float64))
    positive = np.asarray(labels, dtype=np.int64)[order]

    def statistic(weights: Integers) -> Floats:
        ordered = weights[:, order]
        positives = np.add.reduceat(ordered * positive, groups, axis=1)  # (R, distinct scores)
        negatives = np.add.reduceat(ordered * (1 - positive), groups, axis=1)
        below = np.cumsum(negatives, axis=1) - negatives
        doubled = np.sum(positives * (2 * below + negatives), axis=1)
        return _divide(doubled, 2 * positives.sum(axis=1) * negatives.sum(axis=1))

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
        return _divide(np.sum(gained * precision, axis=1), found[:, -1])

    return statistic


def mean_statistic(values: npt.ArrayLike, among: npt.ArrayLike | None = None) -> Statistic:
    """Mean of one number a film, over the films `among` (N booleans; None = all)."""
    share = np.asarray(values, dtype=np.float64)
    counted = np.ones(len(share)) if among is None else np.asarray(among, dtype=np.float64)

    def statistic(weights: Integers) -> Floats:
        return _divide(weights @ (share * counted), weights @ counted)

    return statistic


def resample_patients(
    labels: npt.ArrayLike,
    patients: Sequence[str],
    statistics: Mapping[str, Statistic],
    *,
    resamples: int,
    seed: int,
) -> Resampled:
    """Compute statistics over resamples of whole patients.

    Where the films are of both classes, resamples with only one of them are dropped for every statistic, and counted.

    Args:
        labels: (N,) of 0 and 1.
        patients: N names, one a film.
        statistics: What to compute.
        resamples: How many resamples are drawn.
        seed: What the draws follow from.

    Raises:
        MimError: Fewer than one resample asked for, or labels and patients of different lengths.
    """
    positive = np.asarray(labels, dtype=np.int64)
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
    """Equal-tailed percentile interval of the values; None where there are none.

    Raises:
        MimError: A confidence that is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise MimError(f"confidence is {confidence}; give a number between 0 and 1, such as 0.95")
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _sorted_groups(keys: Floats) -> tuple[Integers, Integers]:
    """Order of the keys, ascending, and where each run of equal keys starts in that order."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def _divide(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Floats:
    """Divide; NaN where the denominator is 0."""
    below = np.asarray(denominator, dtype=np.float64)
    result: Floats = np.full(below.shape, np.nan)
    np.divide(numerator, below, out=result, where=below != 0)
    return result
