from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mim.evaluation import Case, Header, Predictions, admit, choose_worst, evaluate_predictions, write_report


@pytest.fixture
def unscored(predictions: Predictions) -> Predictions:
    scores = predictions.score.copy()
    scores[[0, 7, 8]] = np.nan
    columns = (predictions.image_id, predictions.patient_id, predictions.split, predictions.label)
    return Predictions(*columns, scores, predictions.keep_rate)


def test_films_without_a_score_are_left_out_and_said_in_one_line(
    predictions: Predictions, unscored: Predictions
) -> None:
    metrics = evaluate_predictions(unscored, bootstrap=100)
    kept = predictions.rows(np.array([row not in (0, 7, 8) for row in range(len(predictions))]))
    expected = evaluate_predictions(kept, bootstrap=100)
    assert metrics.test == expected.test
    assert metrics.threshold == expected.threshold
    lines = [line for line in metrics.warnings if "have no score" in line]
    assert [line.split(" (")[0] for line in lines] == [
        f"{count} of {predictions.split.count(split)} {title} films have no score"
        for split, title, count in (("val", "validation", 2), ("test", "test", 1))
    ]


def test_patients_that_were_trained_on_are_left_out_and_said_in_one_line(predictions: Predictions) -> None:
    known = {predictions.patient_id[row] for row in range(len(predictions)) if predictions.split[row] == "test"}
    chosen = sorted(known)[:3]
    metrics = evaluate_predictions(predictions, bootstrap=100, trained_on=chosen)
    assert metrics.test.films == predictions.split.count("test") - 6
    assert [line for line in metrics.warnings if "trained on" in line] == [
        "3 patients of the test set were trained on: 6 of 200 test films are left out of the figures."
    ]
    nobody = evaluate_predictions(predictions, bootstrap=100, trained_on=known)
    assert nobody.test.films == 0
    assert nobody.val.figures["auroc"].value is not None


def test_nothing_to_leave_out_changes_nothing(predictions: Predictions) -> None:
    assert admit(predictions, ["someone else"]).predictions is predictions


def test_tables_keep_films_without_a_score(tmp_path: Path, unscored: Predictions) -> None:
    unscored.save(tmp_path / "predictions.csv")
    again = Predictions.load(tmp_path / "predictions.csv")
    assert np.array_equal(again.score, unscored.score, equal_nan=True)
    assert len(again.scored) == len(unscored) - 3


def test_further_columns_are_kept_through_files_and_rows(tmp_path: Path, make: Callable[..., Predictions]) -> None:
    films = make(12)
    numbers = (films.label, films.score, films.keep_rate)
    columns = {"site": ["A", ""] * 6, "age, years": [str(row) for row in range(12)]}
    table = Predictions(films.image_id, films.patient_id, films.split, *numbers, columns)
    table.save(tmp_path / "predictions.csv")
    again = Predictions.load(tmp_path / "predictions.csv")
    assert again.columns == {name: tuple(values) for name, values in columns.items()}
    assert again.rows([3, 4]).columns == {"site": ("", "A"), "age, years": ("3", "4")}


def test_a_report_and_the_worst_cases_do_without_films_that_have_no_score(
    tmp_path: Path, unscored: Predictions, header: Header
) -> None:
    metrics = evaluate_predictions(unscored, bootstrap=100)
    missed, alarmed = choose_worst(unscored, metrics.threshold.value, 300)
    assert not {0, 7, 8} & {*missed, *alarmed}
    cases: list[Case] = []
    assert "have no score" in write_report(tmp_path, metrics, unscored, cases, [], header).read_text()
