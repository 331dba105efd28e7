"""The worst errors of each class, grade or label."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mim.evaluation.class_metrics import LabelMetrics, called_class
from mim.evaluation.label_predictions import LabelPredictions

MOST_SHOWN = 60
"""Films of a report, so that many classes do not make it too large to open."""


@dataclass(frozen=True)
class LabelError:
    """A film that was called wrongly: its row in the table, and what happened, in short and with the scores."""

    row: int
    kind: str
    said: str


@dataclass(frozen=True)
class ErrorGroup:
    """Errors of one kind, worst first.

    Attributes:
        title: Which.
        total: How many there are; None where there is no threshold to call by.
        errors: Those that are shown.
    """

    title: str
    total: int | None
    errors: tuple[LabelError, ...]

    @property
    def text(self) -> str:
        """How many are shown, in words."""
        if self.total is None:
            return "None can be named: no threshold could be chosen on the validation films."
        if not self.total:
            return "There are none."
        return f"{len(self.errors)} of {self.total} {'is' if len(self.errors) == 1 else 'are'} shown, the worst first."


def find_label_errors(predictions: LabelPredictions, metrics: LabelMetrics, count: int) -> list[ErrorGroup]:
    """Find the most confident errors among the test films.

    Of classes and grades: for each of them its films that were called something else, those with the highest score for
    a wrong class first, and of grades those that are the most grades off. Of several labels: for each the films with it
    and without it that lie on the wrong side of its threshold, the farthest first.

    Args:
        predictions: Any films; those of the test split are looked at.
        metrics: Of these films.
        count: How many of each kind at most; fewer where there are very many kinds.
    """
    test = np.array([split == "test" for split in predictions.split], dtype=bool) & predictions.is_scored
    if predictions.kind == "several":
        kinds = 2 * len(predictions.names)
        most = min(count, max(1, MOST_SHOWN // kinds))
        groups = [_of_label(predictions, metrics, place, test, most) for place in range(len(predictions.names))]
        return [group for pair in groups for group in pair]
    most = min(count, max(1, MOST_SHOWN // len(predictions.names)))
    return [_of_class(predictions, place, test, most) for place in range(len(predictions.names))]


def _of_class(predictions: LabelPredictions, place: int, test: np.ndarray, most: int) -> ErrorGroup:
    names, score = predictions.names, predictions.score
    called = np.zeros(len(predictions), dtype=np.int64)
    called[test] = called_class(predictions.rows(test))
    wrong = np.flatnonzero(test & (predictions.label == place) & (called != place))
    off = np.abs(called[wrong] - place) if predictions.kind == "ordered" else np.zeros(len(wrong), dtype=np.int64)
    order = np.lexsort((-score[wrong, called[wrong]], -off))
    errors = []
    for row in wrong[order][:most].tolist():
        other = int(called[row])
        errors.append(
            LabelError(
                row,
                f"is {names[place]}, called {names[other]}",
                f"Is {names[place]} (score {score[row, place]:.3f}), was called {names[other]} "
                f"({score[row, other]:.3f}).",
            )
        )
    return ErrorGroup(f"{names[place]}, called something else", len(wrong), tuple(errors))


def _of_label(
    predictions: LabelPredictions, metrics: LabelMetrics, place: int, test: np.ndarray, most: int
) -> Sequence[ErrorGroup]:
    name, at = predictions.names[place], metrics.questions[place].threshold.value
    score, truth = predictions.score[:, place], predictions.label[:, place]
    titles = (f"{name}: missed", f"{name}: called, and not there")
    if at is None:
        return [ErrorGroup(title, None, ()) for title in titles]
    missed = np.flatnonzero(test & (truth == 1) & (score < at))
    alarmed = np.flatnonzero(test & (truth == 0) & (score >= at))
    groups = []
    for title, rows, keys in ((titles[0], missed, score[missed]), (titles[1], alarmed, -score[alarmed])):
        ordered = rows[np.argsort(keys, kind="stable")]
        errors = tuple(
            LabelError(row, title, f"Score of {name} {score[row]:.3f}, threshold {at:.3f}.")
            for row in ordered[:most].tolist()
        )
        groups.append(ErrorGroup(title, len(rows), errors))
    return groups
