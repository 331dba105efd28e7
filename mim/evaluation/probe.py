"""How much a frozen encoder knows: a linear probe, nearest neighbours, and the effective rank of its embeddings."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mim.errors import MimError

_EPSILON = 1e-7  # as in the paper, for float32
_TEMPERATURE = 0.07


def rankme(embeddings: ArrayLike) -> float:
    """Gives the effective rank of embeddings: RankMe (Garrido et al., ICML 2023), the exponential of an entropy.

    With singular values s, p = s / sum(s) + 1e-7 and RankMe = exp(-sum(p log p)). It is between about 1 (all films get
    the same embedding, up to a factor) and the smaller of N and D (all directions are used alike).

    Args:
        embeddings: (N, D), not centred, as in the paper.

    Returns:
        The rank; NaN where an embedding is not finite, or all are zero.

    Raises:
        MimError: not a table, or an empty one.
    """
    table = np.asarray(embeddings, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise MimError(f"RankMe: embeddings of shape {table.shape} were given; expected (films, width)")
    if not np.isfinite(table).all():
        return math.nan
    singular = np.linalg.svd(table, compute_uv=False)
    if singular.sum() == 0:
        return math.nan
    share = singular / singular.sum() + _EPSILON
    return float(np.exp(-(share * np.log(share)).sum()))


def linear_probe(features: ArrayLike, labels: ArrayLike, asked: ArrayLike, right: ArrayLike) -> float:
    """Gives the AUROC of a logistic regression on standardised features.

    Args:
        features: (N, D) to learn from.
        labels: (N,) their classes, from 0.
        asked: (M, D) of other patients.
        right: (M,) their classes.

    Returns:
        AUROC; the mean over the classes, each against the rest, where there are more than two. NaN where a feature is
        not finite or a class has nobody.
    """
    known, questions = np.asarray(features, dtype=np.float64), np.asarray(asked, dtype=np.float64)
    if not _is_usable(known, questions, np.asarray(labels)):
        return math.nan
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return _auroc(probe.fit(known, np.asarray(labels)).predict_proba(questions), np.asarray(right))


def nearest_neighbours(
    features: ArrayLike, labels: ArrayLike, asked: ArrayLike, right: ArrayLike, *, neighbours: int
) -> float:
    """Gives the AUROC of a vote of the most alike films, by cosine, each weighing exp(cosine / 0.07).

    The weights are those of Wu et al. (Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018).

    Args:
        features: (N, D) of films that vote.
        labels: (N,) their classes, from 0.
        asked: (M, D) of other patients.
        right: (M,) their classes.
        neighbours: how many vote; all where there are fewer.

    Returns:
        As `linear_probe`.
    """
    known, questions = np.asarray(features, dtype=np.float64), np.asarray(asked, dtype=np.float64)
    classes = np.asarray(labels)
    if not _is_usable(known, questions, classes):
        return math.nan
    cosine = _unit(questions) @ _unit(known).T  # (M, N)
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, : min(neighbours, len(known))]
    weight = np.exp((np.take_along_axis(cosine, nearest, axis=1) - 1) / _TEMPERATURE)
    votes = np.stack([(weight * (classes[nearest] == label)).sum(axis=1) for label in range(classes.max() + 1)], axis=1)
    return _auroc(votes / votes.sum(axis=1, keepdims=True), np.asarray(right))


def _is_usable(known: NDArray[np.float64], asked: NDArray[np.float64], labels: NDArray[np.int64]) -> bool:
    return bool(np.isfinite(known).all() and np.isfinite(asked).all() and len(np.unique(labels)) > 1)


def _unit(table: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    return scaled


def _auroc(score: NDArray[np.float64], right: NDArray[np.int64]) -> float:
    """Of (M, classes) scores."""
    columns = [1] if score.shape[1] == 2 else range(score.shape[1])
    of_class = [right == label for label in columns]
    if not all(member.any() and not member.all() for member in of_class):
        return math.nan
    return float(
        np.mean([roc_auc_score(member, score[:, label]) for member, label in zip(of_class, columns, strict=True)])
    )
