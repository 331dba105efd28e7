"""More than two classes, grades and several labels as questions that are answered by yes or no.

- `classes`: is it this class, or another one? The score is the probability of the class.
- `ordered`: is it worse than this grade? One question for each grade but the last; the score is the sum of the
  probabilities of the worse grades.
- `several`: has it this label? Films of which that is not known have no part in the question.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from mim.evaluation.bootstrap import Floats, Integers, auroc_statistic

LabelKind = Literal["classes", "ordered", "several"]

UNKNOWN = -1
MOST_SHOWN = 8
"""Questions that the report draws, so that many classes do not make it too large; metrics.json has all."""


def answers(label: npt.ArrayLike, count: int, kind: LabelKind) -> Integers:
    """What is so.

    Args:
        label: (N,) places of classes or grades; of several labels (N, count) of 0, 1 and -1.
        count: How many classes, grades or labels there are.
        kind: What they are.

    Returns:
        (N, Q) of 0 and 1, -1 = not known.
    """
    given = np.asarray(label, dtype=np.int64)
    if kind == "several":
        return given.reshape(-1, count)
    if kind == "ordered":
        worse: Integers = (given[:, None] > np.arange(count - 1)).astype(np.int64)
        return worse
    same: Integers = (given[:, None] == np.arange(count)).astype(np.int64)
    return same


def scores(probabilities: npt.ArrayLike, kind: LabelKind) -> Floats:
    """What is said: (N, count) probabilities of classes, grades or labels to (N, Q) scores in [0, 1]."""
    given = np.asarray(probabilities, dtype=np.float64)
    if kind != "ordered":
        return given
    worse: Floats = np.cumsum(given[:, ::-1], axis=1)[:, ::-1][:, 1:]
    return np.clip(worse, 0, 1)


def mean_auroc(probabilities: npt.ArrayLike, label: npt.ArrayLike, kind: LabelKind) -> float:
    """Mean AUROC over the questions of which there are both answers; not a number where there is none.

    Args:
        probabilities: (N, count).
        label: See `answers`.
        kind: What the labels are.
    """
    said = scores(probabilities, kind)
    truth = answers(label, np.asarray(probabilities).shape[1], kind)
    found = []
    for own, score in zip(truth.T, said.T, strict=True):
        known = (own != UNKNOWN) & np.isfinite(score)
        areas = auroc_statistic(own[known], score[known])(np.ones((1, int(known.sum())), dtype=np.int64))
        found += [float(area) for area in areas if np.isfinite(area)]
    return float(np.mean(found)) if found else float("nan")
