"""Two classifiers of more than two classes, of grades, or of several labels on the same films: differences."""

from collections.abc import Mapping

import numpy as np

from mim.errors import MimError
from mim.evaluation.class_metrics import TITLES, call_statistics, mean_auroc_statistic
from mim.evaluation.figures import Figure
from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.metrics import Settings
from mim.evaluation.paired import TITLES as PAIRED
from mim.evaluation.paired import PairedDifference, compare_predictions, paired_measure


def compare_labels(
    first: LabelPredictions, second: LabelPredictions, settings: Settings
) -> dict[str, PairedDifference]:
    """Compare two models on the test films that both could score.

    The figures over all classes or labels stand first, by their names; then those of each question of yes or no, as
    `figure: question`, each model at its own threshold from its own validation films.

    Args:
        first: Validation and test films with the scores of the first model.
        second: The same test films with the scores of the second.
        settings: How intervals are made.

    Raises:
        MimError: The classes, the test films, their patients or their labels differ.
    """
    first, second = _alike(first, second)
    one, other = first.of("test"), second.of("test")
    statistics = {"mean_auroc": (mean_auroc_statistic(one), mean_auroc_statistic(other))}
    if len(one) and one.kind != "several":
        pairs = call_statistics(one), call_statistics(other)
        statistics |= {name: (pairs[0][name], pairs[1][name]) for name in pairs[0]}
    reason = "it is not defined on the test films that both could score"
    if len(one):
        found = paired_measure(statistics, one.patient_id, settings, reason=reason)
    else:
        nothing = Figure(None, None, None, "there are no test films with two scores")
        found = dict.fromkeys(statistics, PairedDifference(None, None, nothing, None))
    for place, question in enumerate(first.questions):
        own = compare_predictions(first.question(place), second.question(place), settings)
        found |= {f"{name}: {question}": row for name, row in own.items()}
    return found


def figure_titles(predictions: LabelPredictions) -> Mapping[str, str]:
    """What the figures of `compare_labels` are called."""
    return {**TITLES, **{f"{name}: {own}": f"{title} of {own}" for own in predictions.questions
                         for name, title in PAIRED.items()}}  # fmt: skip


def _alike(first: LabelPredictions, second: LabelPredictions) -> tuple[LabelPredictions, LabelPredictions]:
    """Give of both the validation films, and the test films that both could score, in the order of the first.

    Raises:
        MimError: In one line, what differs and what to do.
    """
    if (first.kind, first.names) != (second.kind, second.names):
        raise MimError(
            f"comparison: the first run has {first.kind} {', '.join(first.names)}, the second {second.kind} "
            f"{', '.join(second.names)}; give two runs of one target"
        )
    rows = [{name: row for row, name in enumerate(own.image_id) if own.split[row] == "test"} for own in (first, second)]
    if rows[0].keys() != rows[1].keys():
        alone = sorted(rows[0].keys() ^ rows[1].keys())
        raise MimError(
            f"comparison: the runs are of different splits: {len(alone)} test films are in one of them only (such as "
            f"{alone[0]}); evaluate both runs on the same split"
        )
    said = [_identity(own, places) for own, places in zip((first, second), rows, strict=True)]
    if differing := [name for name in said[0] if said[0][name] != said[1][name]]:
        raise MimError(
            f"comparison: {len(differing)} test films have another patient or label in the second table (such as "
            f"{differing[0]}); evaluate both runs on the same labels"
        )
    both = [name for name in rows[0] if first.is_scored[rows[0][name]] and second.is_scored[rows[1][name]]]
    kept = []
    for own, places in zip((first, second), rows, strict=True):
        val = np.flatnonzero(np.array(own.split, dtype=object) == "val")
        kept.append(own.rows(np.array([*val, *(places[name] for name in both)], dtype=np.int64)))
    return kept[0], kept[1]


def _identity(films: LabelPredictions, places: Mapping[str, int]) -> dict[str, tuple[str, str]]:
    return {name: (films.patient_id[row], str(films.label[row].tolist())) for name, row in places.items()}
