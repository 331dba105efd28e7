"""Films of several classes, of grades, and of several labels, with scores that know something of them."""

import numpy as np

from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.label_questions import LabelKind


def films_of(kind: LabelKind, films: int = 240, classes: int = 4, seed: int = 0) -> LabelPredictions:
    """Films whose scores know something of their labels; two films a patient; scores tie."""
    draws = np.random.default_rng(seed)
    patients = np.arange(films) // 2
    if kind == "several":
        label = (draws.random((films, classes)) < 0.35).astype(int)
        score = np.round(1 / (1 + np.exp(-draws.normal(1.5 * (label - 0.5)))), 2)
        label[draws.random(label.shape) < 0.2] = -1
    else:
        label = draws.integers(classes, size=films)
        near = -np.abs(label[:, None] - np.arange(classes)) if kind == "ordered" else np.eye(classes)[label]
        odds = np.exp(1.2 * near + draws.normal(0, 0.7, (films, classes)))
        score = odds / odds.sum(axis=1, keepdims=True)
    return LabelPredictions(
        tuple(f"c{place}" for place in range(classes)),
        kind,
        [f"film{number:03d}" for number in range(films)],
        [f"{patient:08x}" for patient in patients],
        np.where(patients % 3 == 0, "val", "test").tolist(),
        label,
        score,
        np.round(draws.uniform(0.4, 0.6, films), 3),
    )
