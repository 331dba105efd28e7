"""The block on calibration of more than two classes, of grades and of several labels.

Classes and grades share one temperature, by which the logarithms of all probabilities of a film are divided (Guo et
al. 2017); each of several labels has one of its own. Each question of yes or no (`mim.evaluation.label_questions`) is
then measured as two classes are (`mim.evaluation.calibration`), before and after.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mim.evaluation.bootstrap import Floats
from mim.evaluation.calibration import Temperature, fit_class_temperature, fit_temperature, scale_classes
from mim.evaluation.calibration_section import NOTE, TITLES, calibration_figures, reliability, reliability_plots
from mim.evaluation.class_metrics import TITLES as OVERALL
from mim.evaluation.class_metrics import call_statistics
from mim.evaluation.figures import Figure
from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.label_questions import MOST_SHOWN
from mim.evaluation.measuring import as_json, measure, written
from mim.evaluation.metrics import Settings
from mim.evaluation.section import Plot, Section, Table

SHOWN = {"brier": "Brier score", "ece_width": "ECE", "slope": "slope", "in_the_large": "in the large"}


def fit_temperatures(predictions: LabelPredictions) -> tuple[Temperature, ...]:
    """Fit on the validation films: one temperature of classes and grades, else one of each label."""
    val = predictions.rows(predictions.is_scored).of("val")
    if predictions.kind != "several":
        return (fit_class_temperature(val.label, val.score),)
    questions = [val.question(place) for place in range(len(val.names))]
    return tuple(fit_temperature(films.label, films.score) for films in questions)


def scale_scores(predictions: LabelPredictions, temperatures: tuple[Temperature, ...]) -> LabelPredictions:
    """Scores after temperature scaling; grades that are not scaled one by one stay in their order."""
    if predictions.kind != "several":
        scaled = scale_classes(predictions.score, temperatures[0])
    else:
        columns = [own.scale(column) for own, column in zip(temperatures, predictions.score.T, strict=True)]
        scaled = np.stack(columns, axis=1)
    inside: Floats = np.clip(scaled, 0, 1)
    return replace(predictions, score=inside)


def label_calibration_section(predictions: LabelPredictions, settings: Settings) -> Section:
    """Give figures of calibration on the test films, with temperatures from the validation films."""
    predictions = predictions.rows(predictions.is_scored)
    test = predictions.of("test")
    temperatures = fit_temperatures(predictions)
    scaled = scale_scores(test, temperatures)
    before, after = (_of_questions(films, settings) for films in (test, scaled))
    overall = [_overall(films, settings) for films in (test, scaled)]
    tables = [_table("as they are", before), _table("after temperature scaling", after, NOTE)]
    if overall[0]:
        rows = tuple(
            (OVERALL[name], *written(figure), *written(overall[1][name])) for name, figure in overall[0].items()
        )
        heading = ("Figure", "as it is", "interval", "after temperature scaling", "interval")
        tables.insert(0, Table("Calibration of all classes on the test films", heading, rows))
    names = predictions.names if predictions.kind == "several" else ("all",)
    return Section(
        name="label_calibration",
        title="Calibration",
        text=tuple(
            _describe(f" of {name}" if predictions.kind == "several" else "", own)
            for name, own in zip(names, temperatures, strict=True)
        ),
        tables=tuple(tables),
        plots=_diagrams(test, settings),
        figures={
            "temperatures": {
                name: {"value": own.value, "fitted_on": "val", "reason": own.reason}
                for name, own in zip(names, temperatures, strict=True)
            },
            "overall": {name: as_json(figure) for name, figure in overall[0].items()},
            "overall_after_temperature": {name: as_json(figure) for name, figure in overall[1].items()},
            "questions": _json(before),
            "questions_after_temperature": _json(after),
        },
    )


def _overall(films: LabelPredictions, settings: Settings) -> dict[str, Figure]:
    if films.kind == "several" or not len(films):
        return {}
    statistics = call_statistics(films)
    return measure({name: statistics[name] for name in ("brier", "ece")}, films.patient_id, settings)


def _of_questions(films: LabelPredictions, settings: Settings) -> dict[str, dict[str, Figure]]:
    return {
        name: calibration_figures(own, own.score, settings)
        for name, own in zip(films.questions, map(films.question, range(len(films.questions))), strict=True)
    }


def _table(when: str, found: Mapping[str, Mapping[str, Figure]], note: str = "") -> Table:
    heading = ["Class or label"]
    for title in SHOWN.values():
        heading += [title, "interval"]
    rows = []
    for name, figures in found.items():
        cells = [name]
        for figure in SHOWN:
            cells += written(figures[figure])
        rows.append(tuple(cells))
    return Table(f"Scores of each class or label, {when}", tuple(heading), tuple(rows), note)


def _json(found: Mapping[str, Mapping[str, Figure]]) -> dict[str, dict[str, object]]:
    return {name: {figure: as_json(figures[figure]) for figure in TITLES} for name, figures in found.items()}


def _diagrams(test: LabelPredictions, settings: Settings) -> tuple[Plot, ...]:
    plots: list[Plot] = []
    for place, name in enumerate(test.questions[:MOST_SHOWN]):
        films = test.question(place)
        what = f"{name}: reliability diagram of the test films"
        if len(films):
            plots += reliability_plots(reliability(films, films.score, settings), settings, what, f"reliability{place}")
    return tuple(plots)


def _describe(of: str, temperature: Temperature) -> str:
    if temperature.value is None:
        return f"No temperature{of} was fitted: {temperature.reason}."
    told = "too extreme" if temperature.value > 1 else "not extreme enough"
    return (
        f"The temperature{of} fitted on the validation films is {temperature.value:.3f}: there, the scores are {told}."
    )
