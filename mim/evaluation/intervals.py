"""How the intervals of a block are made, and AUROCs of one or several draws with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from mim.evaluation.bootstrap import auroc_statistic, percentile_interval, resample_patients
from mim.evaluation.comparison import Difference, difference_over_seeds
from mim.evaluation.figures import Figure

Floats = npt.NDArray[np.float64]

ONE_CLASS = "the films are of one class only, so there is no AUROC"


@dataclass(frozen=True)
class Intervals:
    """Percentile intervals over resamples of whole patients."""

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    @property
    def level(self) -> str:
        """Such as `95 % interval`."""
        return f"{self.confidence * 100:g} % interval"


def auroc_figures(
    labels: npt.ArrayLike, patients: Sequence[str], scores: Mapping[str, Floats], intervals: Intervals
) -> dict[str, Figure]:
    """Gives the AUROC of several scores of the same films, all on the same resamples.

    Args:
        labels: (N,) of 0 and 1.
        patients: N names.
        scores: By name, (D, N): under D draws of what is random. The AUROC is the mean over the draws, and the interval
            holds the chance of the draws as well as that of the patients.
        intervals: How they are made.
    """
    target = np.asarray(labels, dtype=np.int64)
    if not 0 < target.sum() < len(target):
        return {name: Figure(None, None, None, ONE_CLASS) for name in scores}
    values = {name: float(np.mean([roc_auc_score(target, one) for one in draws])) for name, draws in scores.items()}
    if len(set(patients)) < 2:
        return {name: Figure(value, None, None, "no interval: one patient only") for name, value in values.items()}
    names = [(name, draw) for name, draws in scores.items() for draw in range(len(draws))]
    resampled = resample_patients(
        target,
        patients,
        {f"{draw} {name}": auroc_statistic(target, scores[name][draw]) for name, draw in names},
        resamples=intervals.resamples,
        seed=intervals.seed,
    )
    figures = {}
    for name, draws in scores.items():
        values_of = np.stack([resampled.values[f"{draw} {name}"] for draw in range(len(draws))])  # (D, resamples kept)
        drawn = np.random.default_rng((intervals.seed, 1)).integers(len(draws), size=values_of.shape)
        means = np.take_along_axis(values_of, drawn, axis=0).mean(axis=0)
        interval = percentile_interval(means, intervals.confidence)
        if interval is None:
            figures[name] = Figure(values[name], None, None, "no interval: no resample held both classes")
        else:
            figures[name] = Figure(values[name], *interval)
    return figures


def auroc_difference(
    labels: npt.ArrayLike, patients: Sequence[str], other: Floats, own: Floats, intervals: Intervals
) -> Difference:
    """Gives the AUROC of `own` minus that of `other` on the same films and resamples.

    Args:
        labels: (N,) of 0 and 1.
        patients: N names.
        other: (D, N), under D draws of what is random.
        own: (N,).
        intervals: How they are made.
    """
    return difference_over_seeds(
        labels,
        patients,
        [(draw, own) for draw in other],
        resamples=intervals.resamples,
        confidence=intervals.confidence,
        seed=intervals.seed,
    )
