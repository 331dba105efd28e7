"""A figure over several training seeds: its mean, and how far two ways to train are apart.

Each resample draws patients (the same for all seeds) and training seeds, both with replacement, so an interval holds
both kinds of chance. With few seeds it is somewhat too narrow: n seeds drawn from n vary by (n - 1) / n of their
variance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mim.evaluation.bootstrap import Floats, Statistic, percentile_interval, resample_patients
from mim.evaluation.metrics import Settings

NO_INTERVAL = "one patient only, or no resample in which it is defined: no interval"


@dataclass(frozen=True)
class SeedMean:
    """Mean over training seeds, with an interval; None where it cannot be computed, with the reason.

    Attributes:
        value: Mean over the seeds.
        low: Lower end of its interval over patients and seeds.
        high: Upper end.
        values: The figure of each seed.
        reason: Why there is no value, or no interval.
    """

    value: float | None
    low: float | None
    high: float | None
    values: tuple[float | None, ...]
    reason: str | None = None


@dataclass(frozen=True)
class SeedDifference:
    """Mean over training seeds of second less first, with an interval; None where it cannot be computed.

    Attributes:
        value: Mean over the seeds.
        low: Lower end of its interval over patients and seeds.
        high: Upper end.
        first: Mean of the first over the seeds.
        second: Mean of the second.
        seeds: How many there are.
        reason: Why there is no value, or no interval.
    """

    value: float | None
    low: float | None
    high: float | None
    first: float | None
    second: float | None
    seeds: int
    reason: str | None = None


def mean_over_seeds(
    statistics: Sequence[Statistic],
    patients: Sequence[str],
    settings: Settings,
    *,
    labels: npt.ArrayLike | None = None,
    undefined: str = "it is not defined on these films",
) -> SeedMean:
    """Mean of a figure over training seeds.

    Args:
        statistics: One a training seed, each for the same N films.
        patients: N names, one a film.
        settings: Resamples, confidence and seed.
        labels: (N,) of 0 and 1; resamples of one class are then dropped.
        undefined: Why a statistic may have no value on these films.
    """
    values = [_value(statistic, len(patients)) for statistic in statistics]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return SeedMean(None, None, None, tuple(values), undefined)
    drawn = _resample(statistics, patients, settings, labels)
    low, high, reason = interval_over_seeds(drawn, patients, settings.confidence, settings.seed)
    return SeedMean(float(np.mean(known)), low, high, tuple(values), reason)


def difference_of_seeds(
    pairs: Sequence[tuple[Statistic, Statistic]],
    patients: Sequence[str],
    settings: Settings,
    *,
    labels: npt.ArrayLike | None = None,
    undefined: str = "it is not defined on these films",
) -> SeedDifference:
    """Mean over training seeds of the second's figure less the first's.

    Args:
        pairs: One a training seed: the figure of the first and of the second, each for the same N films.
        patients: N names, one a film.
        settings: Resamples, confidence and seed.
        labels: (N,) of 0 and 1; resamples of one class are then dropped.
        undefined: Why a statistic may have no value on these films.
    """
    values = [[_value(statistic, len(patients)) for statistic in side] for side in zip(*pairs, strict=True)]
    first, second = ([value for value in side if value is not None] for side in values)
    if len(first) < len(pairs) or len(second) < len(pairs):
        return SeedDifference(None, None, None, None, None, len(pairs), undefined)
    flat = [statistic for pair in pairs for statistic in pair]
    drawn = _resample(flat, patients, settings, labels)
    low, high, reason = interval_over_seeds(drawn[1::2] - drawn[::2], patients, settings.confidence, settings.seed)
    means = float(np.mean(first)), float(np.mean(second))
    return SeedDifference(means[1] - means[0], low, high, *means, len(pairs), reason)


def interval_over_seeds(
    values: Floats, patients: Sequence[str], confidence: float, seed: int
) -> tuple[float | None, float | None, str | None]:
    """Interval of the mean over seeds, which are drawn with replacement; or why there is none.

    Args:
        values: (seeds, resamples), the same resamples of patients for each seed.
        patients: N names, one a film.
        confidence: Level of the percentile interval.
        seed: What the draws of seeds follow from.
    """
    # a stream of its own: the patients drawn do not depend on how many seeds there are
    drawn = np.random.default_rng((seed, 1)).integers(len(values), size=values.shape)
    means = np.take_along_axis(values, drawn, axis=0).mean(axis=0)
    interval = None if len(set(patients)) < 2 else percentile_interval(means, confidence)
    return (None, None, NO_INTERVAL) if interval is None else (*interval, None)


def _value(statistic: Statistic, films: int) -> float | None:
    value = float(statistic(np.ones((1, films), dtype=np.int64))[0]) if films else np.nan
    return None if np.isnan(value) else value


def _resample(
    statistics: Sequence[Statistic], patients: Sequence[str], settings: Settings, labels: npt.ArrayLike | None
) -> Floats:
    """(seeds, resamples): each figure on the same resamples of patients."""
    named = {str(place): statistic for place, statistic in enumerate(statistics)}
    drawn = resample_patients(labels, patients, named, resamples=settings.bootstrap, seed=settings.seed)
    return np.stack([drawn.values[name] for name in named])
