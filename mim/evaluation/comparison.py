"""Is one set of scores better than another on the same films?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from mim.errors import MimError
from mim.evaluation.bootstrap import auroc_statistic, resample_patients
from mim.evaluation.over_seeds import interval_over_seeds


@dataclass(frozen=True)
class Difference:
    """AUROC of b minus AUROC of a, with an interval; None where it cannot be computed, with the reason."""

    value: float | None
    low: float | None
    high: float | None
    auroc_a: float | None
    auroc_b: float | None
    seeds: int
    resamples: int
    dropped: int
    reason: str | None = None


def paired_difference(
    labels: npt.ArrayLike,
    patients: Sequence[str],
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """AUROC of b minus AUROC of a on the same films, both on the same resamples of patients.

    Args:
        labels: (N,) of 0 and 1.
        patients: N names, one a film.
        scores_a: (N,) scores of the first model.
        scores_b: (N,) scores of the second.
        resamples: Resamples of patients.
        confidence: Level of the percentile interval.
        seed: What the resamples follow from.

    Raises:
        MimError: Columns of different lengths, or a setting out of its range.
    """
    runs = [(scores_a, scores_b)]
    return difference_over_seeds(labels, patients, runs, resamples=resamples, confidence=confidence, seed=seed)


def difference_over_seeds(
    labels: npt.ArrayLike,
    patients: Sequence[str],
    runs: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Mean over training seeds of AUROC of b minus AUROC of a.

    Each resample draws patients (the same for all seeds) and training seeds, both with replacement, so the interval
    holds both kinds of chance. With few seeds it is somewhat too narrow: n seeds drawn from n vary by (n - 1) / n of
    their variance.

    Args:
        labels: (N,) of 0 and 1.
        patients: N names, one a film.
        runs: One pair (scores_a, scores_b), each (N,), a training seed.
        resamples: Resamples of patients and seeds.
        confidence: Level of the percentile interval.
        seed: What the resamples follow from.

    Raises:
        MimError: No runs, columns of different lengths, or a setting out of its range.
    """
    target = np.asarray(labels, dtype=np.int64).reshape(-1)
    pairs = [(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)) for a, b in runs]
    if not pairs:
        raise MimError("comparison: no runs were given; give a pair of scores a training seed")
    for number, pair in enumerate(pairs, 1):
        if any(scores.shape != target.shape or not np.isfinite(scores).all() for scores in pair):
            raise MimError(f"comparison: scores of pair {number} must be {len(target)} numbers, one a film")
    if not 0 < target.sum() < len(target):
        one_class = "the films are of one class only, so there is no ROC curve"
        return Difference(None, None, None, None, None, len(pairs), resamples, 0, one_class)
    statistics = {f"{s} {n}": auroc_statistic(target, pair[s]) for n, pair in enumerate(pairs) for s in (0, 1)}
    resampled = resample_patients(target, patients, statistics, resamples=resamples, seed=seed)
    # (seeds, resamples kept)
    differences = np.stack([resampled.values[f"1 {n}"] - resampled.values[f"0 {n}"] for n in range(len(pairs))])
    low, high, reason = interval_over_seeds(differences, patients, confidence, seed)
    first, second = (float(np.mean([roc_auc_score(target, pair[s]) for pair in pairs])) for s in (0, 1))
    return Difference(second - first, low, high, first, second, len(pairs), resamples, resampled.dropped, reason)
