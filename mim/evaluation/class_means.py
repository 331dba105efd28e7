"""Means over the classes of a segmenter."""

from collections.abc import Mapping, Sequence

import numpy as np

from mim.evaluation.bootstrap import Floats, Integers, Statistic

CLASS_MEAN = "mean of the classes"


def defined_classes(each: Sequence[Mapping[str, Statistic]], name: str, images: int) -> list[int]:
    """Places of the classes in which a figure has a value on all images together."""
    once = np.ones((1, images), dtype=np.int64)
    return [place for place, own in enumerate(each) if images and np.isfinite(own[name](once)[0])]


def mean_of_classes(each: Sequence[Mapping[str, Statistic]], images: int) -> dict[str, Statistic]:
    """Mean of each figure over the classes that have it; a resample in which one of them lacks it has none.

    Args:
        each: The statistics of each class, by the same names, for weights of the same images.
        images: How many these are.
    """
    return {name: _mean([each[place][name] for place in defined_classes(each, name, images)]) for name in dict(each[0])}


def _mean(statistics: Sequence[Statistic]) -> Statistic:
    def statistic(weights: Integers) -> Floats:
        if not statistics:
            return np.full(len(weights), np.nan)
        mean: Floats = np.mean([own(weights) for own in statistics], axis=0)
        return mean

    return statistic
