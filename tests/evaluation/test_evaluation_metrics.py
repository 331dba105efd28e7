import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from mim.errors import MimError
from mim.evaluation import Header, Metrics, Predictions, Section, evaluate_predictions
from mim.evaluation.bootstrap import patient_weights
from mim.evaluation.figures import FIGURES as FIGURE_DEFINITIONS
from mim.evaluation.figures import measure_split

FIGURES = {
    *("auroc", "auroc_delong", "auprc", "sensitivity", "specificity", "ppv", "npv", "f1", "accuracy", "brier"),
    *("prevalence", "keep_rate", "keep_rate_auroc"),
}


def only(predictions: Predictions, split: str, label: int) -> Predictions:
    """Leave one class in one split."""
    keep = [
        name != split or own == label for name, own in zip(predictions.split, predictions.label.tolist(), strict=True)
    ]
    return predictions.rows(np.array(keep))


def numbers(content: Any) -> list[float]:
    if isinstance(content, dict):
        return [number for value in content.values() for number in numbers(value)]
    if isinstance(content, list):
        return [number for value in content for number in numbers(value)]
    return [content] if isinstance(content, int | float) else []


def test_values_are_exactly_those_of_the_libraries(predictions: Predictions) -> None:
    metrics = evaluate_predictions(predictions, bootstrap=200)
    for split in (metrics.test, metrics.val):
        films = predictions.of("test" if split is metrics.test else "val")
        called = films.score >= metrics.threshold.value
        expected = {
            "auroc": roc_auc_score(films.label, films.score),
            "auroc_delong": roc_auc_score(films.label, films.score),
            "auprc": average_precision_score(films.label, films.score),
            "sensitivity": recall_score(films.label, called),
            "specificity": recall_score(films.label, called, pos_label=0),
            "ppv": precision_score(films.label, called),
            "npv": precision_score(films.label, called, pos_label=0),
            "f1": f1_score(films.label, called),
            "accuracy": accuracy_score(films.label, called),
            "brier": brier_score_loss(films.label, films.score),
            "prevalence": films.label.mean(),
            "keep_rate": films.keep_rate.mean(),
            "keep_rate_auroc": roc_auc_score(films.label, films.keep_rate),
        }
        assert {name: figure.value for name, figure in split.figures.items()} == expected
        scores, labels = torch.from_numpy(films.score), torch.from_numpy(films.label)
        assert split.figures["auroc"].value == pytest.approx(binary_auroc(scores, labels).item(), abs=1e-6)
        assert split.figures["auprc"].value == pytest.approx(binary_average_precision(scores, labels).item(), abs=1e-6)


def test_every_value_lies_in_its_interval(predictions: Predictions) -> None:
    metrics = evaluate_predictions(predictions, bootstrap=500)
    for figure in (*metrics.test.figures.values(), *metrics.val.figures.values()):
        assert None not in (figure.low, figure.value, figure.high)
        assert 0 <= figure.low < figure.value < figure.high <= 1  # type: ignore[operator]


def test_resampled_values_are_exactly_those_of_scikit_learn(predictions: Predictions) -> None:
    films = predictions.of("test")
    (weights,) = patient_weights(films.patient_id, 20, seed=1)
    references = {"ppv": precision_score, "npv": partial(precision_score, pos_label=0), "f1": f1_score}
    for name, reference in references.items():
        for row, value in zip(weights, FIGURE_DEFINITIONS[name].weighted(films, 0.6)(weights), strict=True):
            written = np.repeat(np.arange(len(films)), row)
            assert value == pytest.approx(reference(films.label[written], films.score[written] >= 0.6), abs=1e-12)


def test_nobody_called_positive_has_no_predictive_value(predictions: Predictions) -> None:
    split = measure_split(predictions.of("test"), "test", 1.1, resamples=100, confidence=0.95, seed=0)
    assert (split.figures["ppv"].value, split.figures["ppv"].reason) == (None, "no test film is called positive")
    assert split.figures["npv"].value is not None
    assert split.figures["f1"].value == 0


def test_counts_add_up(predictions: Predictions) -> None:
    metrics = evaluate_predictions(predictions, bootstrap=100)
    films = predictions.of("test")
    test, counts = metrics.test, metrics.test.confusion
    assert (test.films, test.patients) == (len(films), len(set(films.patient_id)))
    assert test.positives == films.label.sum()
    assert counts is not None
    assert counts.true_positives + counts.false_negatives == test.positives
    assert counts.true_negatives + counts.false_positives == test.negatives
    assert counts.true_positives / test.positives == test.figures["sensitivity"].value


def test_the_threshold_is_chosen_on_validation_films_alone(predictions: Predictions) -> None:
    metrics = evaluate_predictions(predictions, bootstrap=100, specificity=0.8)
    assert (metrics.val.figures["specificity"].value or 0) >= 0.8
    without_test = evaluate_predictions(predictions.of("val"), bootstrap=100, specificity=0.8)
    assert without_test.threshold == metrics.threshold


def test_the_seed_decides_the_intervals(predictions: Predictions) -> None:
    one, again, other = (evaluate_predictions(predictions, bootstrap=100, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one.test.figures["auroc"].value == other.test.figures["auroc"].value
    assert one.test.figures["auroc"] != other.test.figures["auroc"]


def test_metrics_json_has_the_documented_keys(tmp_path: Path, predictions: Predictions, header: Header) -> None:
    metrics = evaluate_predictions(predictions, bootstrap=100)
    block = Section("lesion_recall", "Lesions seen", figures={"all": 0.5})
    metrics.save(tmp_path / "metrics.json", header, ["2 test films were met in pretraining."], [block])
    content = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert list(content) == ["schema_version", "header", "settings", "threshold", "test", "val", "blocks", "warnings"]
    assert content["schema_version"] == 1
    assert content["header"]["image_size"] == [224, 448]
    assert content["settings"] == {"bootstrap": 100, "confidence": 0.95, "specificity": 0.9, "seed": 0}
    assert content["threshold"] == {"value": metrics.threshold.value, "chosen_on": "val", "reason": None}
    for split in ("test", "val"):
        counts = {"films", "patients", "positives", "negatives", "resamples", "dropped", "confusion"}
        assert set(content[split]) == counts | FIGURES
        assert all(set(content[split][name]) == {"value", "low", "high", "reason"} for name in FIGURES)
    assert content["blocks"] == {"lesion_recall": {"all": 0.5}}
    assert content["warnings"] == ["2 test films were met in pretraining."]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("split", ["test", "val"])
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only_gives_what_it_can_and_says_the_rest(predictions: Predictions, split: str, label: int) -> None:
    metrics = evaluate_predictions(only(predictions, split, label), bootstrap=100)
    part = metrics.test if split == "test" else metrics.val
    for name in ("auroc", "auprc", "keep_rate_auroc"):
        assert part.figures[name].value is None
        assert f"no {'positive' if label == 0 else 'negative'} film" in (part.figures[name].reason or "")
    assert part.figures["brier"].low is not None
    assert any("missing" in warning and "AUROC" in warning for warning in metrics.warnings)
    if split == "test":
        given, missing = ("specificity", "sensitivity") if label == 0 else ("sensitivity", "specificity")
        assert part.figures[given].value is not None
        assert part.figures[missing].value is None
    if split == "val":
        assert metrics.test.figures["auroc"].value is not None
        assert (metrics.threshold.value is None) == (label == 1)
    json.dumps(metrics.to_dict(), allow_nan=False)


@pytest.mark.parametrize("rows", [[], [0], [0, 1], [6], list(range(6))])
def test_hardly_any_films_crash_nothing(predictions: Predictions, rows: list[int]) -> None:
    metrics = evaluate_predictions(predictions.rows(np.array(rows, dtype=int)), bootstrap=100)
    assert metrics.warnings
    assert all(math.isfinite(number) for number in numbers(metrics.to_dict()))


def test_one_patient_has_values_but_no_interval() -> None:
    films = Predictions(["a", "b"], ["p", "p"], ["test"] * 2, [0, 1], [0.1, 0.9], [1, 1])  # type: ignore[arg-type]
    figure = evaluate_predictions(films).test.figures["auroc"]
    assert (figure.value, figure.low, figure.high) == (1, None, None)
    assert "one patient" in (figure.reason or "")


def warnings_of(metrics: Metrics) -> str:
    return " ".join(metrics.warnings)


def test_a_mask_that_gives_the_label_away_is_reported(predictions: Predictions) -> None:
    rates = 0.4 + 0.2 * predictions.label
    columns = (predictions.image_id, predictions.patient_id, predictions.split, predictions.label, predictions.score)
    assert "give the answer away" in warnings_of(evaluate_predictions(Predictions(*columns, rates), bootstrap=100))
    constant = np.full(len(predictions), 0.5)
    metrics = evaluate_predictions(Predictions(*columns, constant), bootstrap=100)
    assert metrics.test.figures["keep_rate_auroc"].value == 0.5
    assert "give the answer away" not in warnings_of(metrics)


def test_a_patient_in_both_splits_is_reported(predictions: Predictions) -> None:
    patients = ["same", *predictions.patient_id[1:-1], "same"]
    columns = (predictions.label, predictions.score, predictions.keep_rate)
    mixed = Predictions(predictions.image_id, patients, ["val", *predictions.split[1:-1], "test"], *columns)
    assert "1 patient has films in both" in warnings_of(evaluate_predictions(mixed, bootstrap=100))


def test_few_patients_and_perfect_figures_are_not_taken_for_certainty(make: Callable[..., Predictions]) -> None:
    films = make(24)
    perfect = Predictions(
        films.image_id, films.patient_id, films.split, films.label, films.label * 0.8 + 0.1, films.keep_rate
    )
    text = warnings_of(evaluate_predictions(perfect, bootstrap=200))
    assert "the intervals are rough" in text
    assert "AUROC is 1.000 in every resample" in text


@pytest.mark.parametrize(
    "setting", [{"bootstrap": 0}, {"confidence": 1.0}, {"specificity": 0.0}, {"confidence": float("nan")}, {"seed": -1}]
)
def test_settings_out_of_range_are_refused(predictions: Predictions, setting: dict[str, Any]) -> None:
    with pytest.raises(MimError, match=next(iter(setting))):
        evaluate_predictions(predictions, **setting)
