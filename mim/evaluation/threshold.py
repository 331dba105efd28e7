"""The score at which a film is called positive, and who is then called wrongly."""

from dataclasses import dataclass

import numpy as np

from mim.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Threshold:
    """The score at and above which something is called positive; None with the reason where none could be chosen."""

    value: float | None
    reason: str | None = None


def choose_threshold(films: Predictions, specificity: float) -> Threshold:
    """Choose the smallest score of these films that is a threshold of at least this specificity on them.

    A film is positive where its score >= threshold, so films that tie are called alike. The candidates are the
    scores met (of both classes): the smallest that fits keeps the most positives.

    Args:
        films: The validation films.
        specificity: Least share of the negatives that must lie below the threshold.

    Returns:
        The threshold, or the reason why there is none: no negatives, or no score met lies above enough of them.
    """
    negatives = np.sort(films.score[films.label == 0])
    if not len(films):
        return Threshold(None, "there are no validation films to choose a threshold on")
    if not len(negatives):
        return Threshold(None, "the validation set has no negative film, so no specificity can be measured there")
    candidates = np.unique(films.score)
    reached = np.searchsorted(negatives, candidates, side="left") / len(negatives)
    fitting = candidates[reached >= specificity]
    if not len(fitting):
        best = f"{reached[-1]:.3f} at best"
        reason = f"no threshold reaches a specificity of {specificity:g} on the validation films without "
        return Threshold(None, f"{reason}calling all of them negative ({best}: negatives tie for the highest scores)")
    return Threshold(float(fitting[0]))


def choose_worst(predictions: Predictions, threshold: float | None, count: int) -> tuple[list[int], list[int]]:
    """Find the most confident errors among the test films.

    Args:
        predictions: Any films; those of the test split are looked at.
        threshold: The score at and above which a film is called positive; None = nothing can be called wrong.
        count: How many of each kind at most.

    Returns:
        Rows of the false negatives, lowest score first, and of the false positives, highest score first. Ties stand
        in the order of the table.
    """
    if threshold is None:
        return [], []
    test = np.array([split == "test" for split in predictions.split], dtype=bool)
    positive, called = predictions.label == 1, predictions.score >= threshold
    by_score = np.argsort(predictions.score, kind="stable")
    test &= ~np.isnan(predictions.score)
    missed = by_score[(test & positive & ~called)[by_score]]
    by_score_down = np.argsort(-predictions.score, kind="stable")
    alarmed = by_score_down[(test & ~positive & called)[by_score_down]]
    return missed[:count].tolist(), alarmed[:count].tolist()
