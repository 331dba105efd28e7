"""The figures that evaluate.py prints."""

import numpy as np

from mim.evaluation import Predictions, evaluate_predictions
from mim.stages.evaluate import summarise


def test_why_there_is_no_interval_is_said_once() -> None:
    splits = ["val"] * 4 + ["test"] * 4
    patients = ["a", "b", "c", "d"] + ["e"] * 4
    score = np.array([0.1, 0.8, 0.2, 0.9] * 2)
    films = Predictions([str(place) for place in range(8)], patients, splits, np.array([0, 1] * 4), score, np.ones(8))
    lines = summarise(evaluate_predictions(films, bootstrap=50), 0.95)
    assert "test AUC 1.000 (no interval: one patient only)" in lines
    assert not any("no interval: no interval" in line for line in lines)
