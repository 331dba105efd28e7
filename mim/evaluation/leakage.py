"""Does a mask give the label away by its shape, rather than by what it shows?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mim.evaluation.bootstrap import mean_statistic, percentile_interval, resample_patients
from mim.evaluation.comparison import Difference
from mim.evaluation.figures import Figure
from mim.evaluation.intervals import Intervals

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Masks = npt.NDArray[np.bool_]

FOLDS = 5
_STRENGTH = 0.01  # inverse of the penalty: there are more cells than films


@dataclass(frozen=True)
class Evaluator:
    """What a network that never met the mask in training makes of it.

    Attributes:
        masker: Kind of mask that it was trained behind.
        at_own_share: Its AUC behind the run's mask, random masks and Otsu's foreground at the same share.
        differences: Of these: the run's mask less random, and less Otsu.
        gap: AUC of the run's own network less that of the evaluator, both behind the run's mask.
    """

    masker: str
    at_own_share: Mapping[str, Figure]
    differences: Mapping[str, Difference]
    gap: Difference


@dataclass(frozen=True)
class Leakage:
    """What a mask may give away.

    Attributes:
        alone: AUC of a classifier that sees masks alone: the run's, random ones and Otsu's at the same share.
        shifted: AUC of the network behind its own mask, shifted.
        swapped: AUC of the network behind the mask of another patient's film.
        lost_by_shift: AUC behind the own mask less that behind the shifted one.
        lost_by_swap: AUC behind the own mask less that behind another film's.
        follows_mask: AUC of the score of a film against the label of the other film whose mask it wears.
        keep_rate: AUC of the share that is seen, against the label.
        overlap: Mean intersection over union with the data set's mean mask.
        overlap_by_chance: That of masks drawn at random at the same share.
        evaluator: An independent network's view; None without one.
        no_evaluator: Why there is none.
    """

    alone: Mapping[str, Figure]
    shifted: Figure
    swapped: Figure
    lost_by_shift: Difference
    lost_by_swap: Difference | None
    follows_mask: Figure
    keep_rate: Figure
    overlap: Figure
    overlap_by_chance: float
    evaluator: Evaluator | None
    no_evaluator: str


def mask_features(masks: Masks) -> Floats:
    """Describes masks by their cells, and by their shape wherever it lies.

    Args:
        masks: (N, gh, gw), True = visible.

    Returns:
        (N, gh * gw + 17): each cell, how often each of the 16 patterns of 2 by 2 cells occurs, and the share visible.
    """
    cells = masks.astype(np.int64)
    corners = (cells[:, :-1, :-1], cells[:, 1:, :-1], cells[:, :-1, 1:], cells[:, 1:, 1:])
    patterns = sum(corner << place for place, corner in enumerate(corners)).reshape(len(cells), -1)  # type: ignore[union-attr]
    often = np.stack([(patterns == pattern).sum(axis=1) for pattern in range(16)], axis=1)
    flat = cells.reshape(len(cells), -1)
    return np.concatenate([flat, often, flat.mean(axis=1, keepdims=True)], axis=1).astype(np.float64)


def score_masks_alone(
    masks: Masks, labels: npt.ArrayLike, patients: Sequence[str], seed: int
) -> tuple[Floats | None, str]:
    """Lets a classifier guess each film's label from its mask alone, without a pixel of the film.

    A penalised logistic regression on `mask_features` learns from four fifths of the patients and is asked about the
    last fifth, five times over. As each fifth has a model of its own, scores are ranks within the fifth.

    Args:
        masks: (N, gh, gw), True = visible.
        labels: (N,) of 0 and 1.
        patients: N names.
        seed: Of the parts.

    Returns:
        (N,) scores in (0, 1] and nothing; or None with the reason.
    """
    target = np.asarray(labels, dtype=np.int64)
    people = np.asarray(patients, dtype=object).astype(str)
    fewest = min(len(set(people[target == label])) for label in (0, 1))
    if fewest < FOLDS:
        return None, f"fewer than {FOLDS} patients of a class: too few to learn from some and to ask about others"
    features = mask_features(masks)
    scores = np.zeros(len(target))
    parts = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for known, asked in parts.split(features, target, people):
        if len(set(target[known])) < 2:
            return None, "the patients cannot be parted so that each part has films of both classes"
        model = make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=1000))
        guessed = model.fit(features[known], target[known]).decision_function(features[asked])
        scores[asked] = _ranks(guessed) / len(asked)
    return scores, ""


def roll_masks(masks: Masks, seed: int) -> Masks:
    """Shifts each mask by a random offset, around the border: as much is seen, in the wrong place.

    Args:
        masks: (N, gh, gw).
        seed: Of the offsets, none of which is 0; of a grid of one cell the mask stays.
    """
    height, width = masks.shape[1:]
    draws = np.random.default_rng((seed, 2)).integers(1, max(height * width, 2), size=len(masks))
    return np.stack(
        [np.roll(mask, (draw // width, draw % width), axis=(0, 1)) for mask, draw in zip(masks, draws, strict=True)]
    )


def choose_donors(patients: Sequence[str], seed: int) -> Integers | None:
    """Draws for each film a film of another patient, whose mask it is to wear.

    Args:
        patients: N names.
        seed: Of the draws.

    Returns:
        (N,) numbers of films; None where there is one patient only.
    """
    people = np.asarray(patients, dtype=object).astype(str)
    if len(set(people)) < 2:
        return None
    generator = np.random.default_rng((seed, 3))
    return np.array([generator.choice(np.flatnonzero(people != person)) for person in people], dtype=np.int64)


def mean_mask(masks: Masks, counts: Integers) -> Masks:
    """Gives, for each film, the cells that are visible most often over all films, as many as the film's mask shows.

    Args:
        masks: (N, gh, gw).
        counts: (N,) cells.
    """
    often = masks.mean(axis=0).ravel()
    place = np.empty(often.size, dtype=np.int64)
    place[np.argsort(-often, kind="stable")] = np.arange(often.size)
    binary: Masks = (place[None] < counts[:, None]).reshape(masks.shape)
    return binary


def mask_overlap(masks: Masks, patients: Sequence[str], intervals: Intervals) -> tuple[Figure, float]:
    """Gives how alike the masks of all films are: intersection over union with the data set's mean mask.

    The mean of all masks is made binary at the share that each film's mask shows. Near 1, every film has the same mask.

    Args:
        masks: (N, gh, gw).
        patients: N names.
        intervals: How the interval is made.

    Returns:
        The mean over the films; and what masks would have that are drawn at random with the same share s, s / (2 - s).
    """
    counts = masks.sum(axis=(1, 2))
    mean = mean_mask(masks, counts)
    values = (masks & mean).sum(axis=(1, 2)) / np.maximum((masks | mean).sum(axis=(1, 2)), 1)
    share = counts / masks[0].size
    chance = float((share / (2 - share)).mean())
    if len(set(patients)) < 2:
        return Figure(float(values.mean()), None, None, "no interval: one patient only"), chance
    resampled = resample_patients(
        np.zeros(len(values)),
        patients,
        {"overlap": mean_statistic(values)},
        resamples=intervals.resamples,
        seed=intervals.seed,
    )
    interval = percentile_interval(resampled.values["overlap"], intervals.confidence)
    assert interval is not None
    return Figure(float(values.mean()), *interval), chance


def _ranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = (ends - (counts - 1) / 2)[inverse]
    return ranks
