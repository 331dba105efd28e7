"""The blocks that divide the test films of more than two classes, of grades and of several labels into groups."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from mim.evaluation.class_metrics import TITLES as FIGURES
from mim.evaluation.class_metrics import LabelMetrics, call_statistics, mean_auroc_statistic
from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.label_questions import MOST_SHOWN, UNKNOWN, LabelKind, answers
from mim.evaluation.measuring import measure, written
from mim.evaluation.metrics import Settings
from mim.evaluation.section import Section, Table
from mim.evaluation.strata import FEW, Measured, Rows, Stratum, describe_worst, strata, strata_json, strata_tables
from mim.evaluation.strata_section import TITLES, film_strata

LEADING: Mapping[LabelKind, tuple[str, ...]] = MappingProxyType(
    {
        "classes": ("mean_auroc", "accuracy", "balanced_accuracy"),
        "ordered": ("mae", "accuracy", "kappa", "mean_auroc"),
        "several": ("mean_auroc",),
    }
)
"""Figures of a group; the first says which group is the worst."""
RAREST = "rarest answer"
NOTE = (
    f"“{RAREST.capitalize()}” is the smallest number of films with, or without, one of the classes or labels. Where it "
    "is 0, the mean AUROC of the group leaves that one out and is not quite comparable. Kappa also depends on how "
    "different the grades of a group are."
)
OF_EACH = (
    "The thresholds are those of all films.",
    "Where a column, such as a grade of lesions, is empty for all films without a class or label, each of its groups "
    "is set against all of those.",
)
SAME = "{} says what the label says: films are not divided by it."


def label_strata(test: LabelPredictions, settings: Settings) -> list[Stratum]:
    """Measure the groups of films that the further columns make, over all classes or labels.

    Args:
        test: Films that have scores.
        settings: How intervals are made.
    """
    names = LEADING[test.kind]
    why = dict.fromkeys(names, "it is not defined on the films of the group")

    def measured(rows: Rows, _column: str) -> Measured:
        films = test.rows(rows)
        found = {"mean_auroc": mean_auroc_statistic(films)}
        if films.kind != "several":
            found |= call_statistics(films)
        figures = measure({name: found[name] for name in names}, films.patient_id, settings, reasons=why)
        return Measured({"films": len(films), RAREST: _rarest(films)}, figures)

    return strata(dividing_columns(test)[0], measured, highest_is_worst=test.kind == "ordered")


def dividing_columns(films: LabelPredictions) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Give the further columns that tell more than the label does, and the names of the others."""
    kept, same = {}, []
    for name, values in films.columns.items():
        pairs = set(zip(values, map(str, films.label.tolist()), strict=True))
        texts, labels = ({pair[place] for pair in pairs} for place in (0, 1))
        if films.kind != "several" and 1 < len(pairs) == len(texts) == len(labels):
            same.append(name)
        else:
            kept[name] = tuple(values)
    return kept, same


def label_strata_sections(
    predictions: LabelPredictions, metrics: LabelMetrics, settings: Settings
) -> tuple[Section, ...]:
    """Give the tables by group for the test films, over all classes or labels and for each of them.

    Args:
        predictions: Validation and test films.
        metrics: Of these films.
        settings: How intervals are made.

    Returns:
        Nothing where there are no films or no further columns.
    """
    test = predictions.rows(predictions.is_scored).of("test")
    columns, same = dividing_columns(test)
    if not len(test) or not test.columns:
        return ()
    told = tuple(SAME.format(name) for name in same)
    if not columns:
        return (Section(name="strata", title="Groups of films", text=told),)
    found = label_strata(test, settings)
    overall = Section(
        name="strata",
        title="Groups of films",
        text=(*describe_worst(found, FIGURES), *told, NOTE),
        tables=strata_tables(found, FIGURES),
        figures=strata_json(found),
    )
    return overall, _by_question(predictions, metrics, tuple(columns), settings)


def _by_question(
    predictions: LabelPredictions, metrics: LabelMetrics, columns: tuple[str, ...], settings: Settings
) -> Section:
    """Each class, cut between grades or label by itself, as two classes are."""
    of_each: dict[str, list[Stratum]] = {}
    for place, question in enumerate(metrics.questions):
        films = predictions.question(place).of("test")
        films = replace(films, columns={name: films.columns[name] for name in columns})
        of_each[question.name] = film_strata(films, question.threshold.value, settings) if len(films) else []
    shown = list(of_each)[:MOST_SHOWN]
    left_out = len(of_each) - len(shown)
    return Section(
        name="strata_by_question",
        title="Groups of films, one class or label at a time",
        text=OF_EACH + ((f"{left_out} more are in metrics.json only.",) if left_out else ()),
        tables=tuple(_table(column, {name: of_each[name] for name in shown}) for column in columns),
        figures={name: strata_json(found) for name, found in of_each.items()},
    )


def _table(column: str, of_each: Mapping[str, list[Stratum]]) -> Table:
    heading = ["Class or label, and group", "with it", "without it"]
    for title in TITLES.values():
        heading += [title, "interval"]
    rows, few = [], False
    for name, found in of_each.items():
        for stratum in found:
            if stratum.column != column:
                continue
            few |= stratum.few
            cells = [f"{name}: {stratum.group}{' †' if stratum.few else ''}", *map(str, stratum.counts.values())]
            for figure in stratum.figures.values():
                cells += written(figure)
            rows.append(tuple(cells))
    note = f"† Fewer than {FEW} cases: hardly more than an anecdote." if few else ""
    return Table(f"By {column}, of each class or label the worst group first", tuple(heading), tuple(rows), note)


def _rarest(films: LabelPredictions) -> int:
    truth = answers(films.label, len(films.names), films.kind)
    known = truth != UNKNOWN
    positive = (truth == 1).sum(axis=0)
    return int(np.minimum(positive, known.sum(axis=0) - positive).min(initial=len(films)))
