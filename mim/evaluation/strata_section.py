"""The block that divides the test films by the further columns of the table of predictions."""

from types import MappingProxyType

import numpy as np

from mim.evaluation.bootstrap import auroc_statistic, mean_statistic
from mim.evaluation.figures import Figure
from mim.evaluation.measuring import measure
from mim.evaluation.metrics import Settings
from mim.evaluation.predictions import Predictions
from mim.evaluation.section import Section
from mim.evaluation.strata import Measured, Rows, Stratum, describe_worst, strata, strata_json, strata_tables
from mim.evaluation.threshold import choose_threshold

TITLES = MappingProxyType({"auroc": "AUROC", "sensitivity": "sensitivity", "specificity": "specificity"})
OF_THE_SICK = (
    "{} is known of positive films only, so each of its groups is set against all negative films; specificity is the "
    "same in all of them."
)


def film_strata(films: Predictions, threshold: float | None, settings: Settings) -> list[Stratum]:
    """Measure the groups of films that the further columns make.

    A column that is empty for every negative film, such as a grade, is one of the sick: each of its groups is set
    against all negative films, and positive films without a value are a group of their own.

    Args:
        films: Films of one split that have scores.
        threshold: Score at and above which a film is positive; None = there is none.
        settings: How intervals are made.
    """
    of_the_sick = {name for name in films.columns if _of_the_sick(films, name)}

    def measured(rows: Rows, column: str) -> Measured:
        shared = films.label == 0 if column in of_the_sick else np.zeros(len(films), dtype=bool)
        return _measure_films(films.rows(rows | shared), threshold, settings)

    found = strata(films.columns, measured)
    # where negatives are shared, the group of those not known holds no positive film of its own in the best case
    return [row for row in found if row.column not in of_the_sick or row.counts["positive"]]


def strata_section(predictions: Predictions, settings: Settings) -> Section | None:
    """Give the tables by group for the test films; None where the table has no further columns."""
    predictions = predictions.scored
    test = predictions.of("test")
    if not predictions.columns or not len(test):
        return None
    threshold = choose_threshold(predictions.of("val"), settings.specificity)
    found = film_strata(test, threshold.value, settings)
    notes = [OF_THE_SICK.format(name) for name in test.columns if _of_the_sick(test, name)]
    if threshold.value is None:
        notes.append(f"There is no sensitivity and no specificity: {threshold.reason}.")
    return Section(
        name="strata",
        title="Groups of films",
        text=(*describe_worst(found, TITLES), *notes),
        tables=strata_tables(found, TITLES),
        figures=strata_json(found),
    )


def _of_the_sick(films: Predictions, name: str) -> bool:
    values = np.array([bool(value) for value in films.columns[name]], dtype=bool)
    return bool(values.any() and (films.label == 0).any() and not values[films.label == 0].any())


def _measure_films(films: Predictions, threshold: float | None, settings: Settings) -> Measured:
    counts = {"positive": int((films.label == 1).sum()), "negative": int((films.label == 0).sum())}
    statistics = {"auroc": auroc_statistic(films.label, films.score)}
    if threshold is not None:
        called = films.score >= threshold
        statistics["sensitivity"] = mean_statistic(called, films.label == 1)
        statistics["specificity"] = mean_statistic(~called, films.label == 0)
    reasons = {
        "auroc": "the group is not of both classes",
        "sensitivity": "the group has no positive film",
        "specificity": "the group has no negative film",
    }
    figures = measure(statistics, films.patient_id, settings, labels=films.label, reasons=reasons)
    none = Figure(None, None, None, "no threshold could be chosen on the validation films")
    return Measured(counts, {name: figures.get(name, none) for name in TITLES})
