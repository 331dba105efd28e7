from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from mim.errors import MimError
from mim.evaluation import (
    Detections,
    Lesions,
    Predictions,
    Settings,
    compare_detections,
    compare_predictions,
    comparison_section,
)
from mim.evaluation.delong import delong


def with_scores(films: Predictions, scores: np.ndarray) -> Predictions:
    return Predictions(films.image_id, films.patient_id, films.split, films.label, scores, films.keep_rate)


@pytest.fixture
def noisy(predictions: Predictions) -> Predictions:
    noise = np.random.default_rng(5).normal(0, 0.25, len(predictions))
    return with_scores(predictions, np.clip(predictions.score + noise, 0, 1))


def test_differences_are_second_minus_first(predictions: Predictions, noisy: Predictions) -> None:
    found = compare_predictions(predictions, noisy, Settings(300))
    one, other = predictions.of("test"), noisy.of("test")
    for name, reference in (("auroc", roc_auc_score), ("auprc", average_precision_score), ("brier", brier_score_loss)):
        row = found[name]
        assert row.first == pytest.approx(reference(one.label, one.score))
        assert row.second == pytest.approx(reference(other.label, other.score))
        assert row.difference.value == pytest.approx(row.second - row.first)  # type: ignore[operator]
        assert row.difference.low < row.difference.value < row.difference.high  # type: ignore[operator]
    value, interval, p = delong(one.label, one.patient_id, one.score, other.score).difference(0.95)
    assert (found["auroc_delong"].difference.value, found["auroc_delong"].p) == (value, p)
    assert interval == (found["auroc_delong"].difference.low, found["auroc_delong"].difference.high)
    assert found["auroc"].p is not None
    assert found["auroc"].p < 0.05


def test_the_order_of_the_second_table_does_not_matter(predictions: Predictions, noisy: Predictions) -> None:
    turned = noisy.rows(np.arange(len(noisy))[::-1])
    assert compare_predictions(predictions, turned, Settings(100)) == compare_predictions(
        predictions, noisy, Settings(100)
    )


def test_a_model_is_not_better_than_itself(predictions: Predictions) -> None:
    for name, row in compare_predictions(predictions, predictions, Settings(100)).items():
        assert row.difference.value == 0
        assert row.p == (None if name == "auroc_delong" else 1)


def test_p_is_right_as_often_as_it_says(make: Callable[..., Predictions]) -> None:
    wrong = 0
    for seed in range(60):
        draws = np.random.default_rng(seed)
        films = make(240, seed=seed, films_a_patient=1)
        base = films.label + draws.normal(0, 1, 240)
        one, other = (1 / (1 + np.exp(-base - draws.normal(0, 0.7, 240))) for _ in range(2))
        row = compare_predictions(with_scores(films, one), with_scores(films, other), Settings(150))
        wrong += (row["auroc"].p or 1) < 0.05
    assert wrong <= 9  # 3 expected; more than 9 of 60 happens once in a thousand times at 5 %


def test_tables_of_another_split_are_refused_in_one_line(predictions: Predictions, noisy: Predictions) -> None:
    other = Predictions(
        noisy.image_id,
        noisy.patient_id,
        ["test" if split == "val" else "val" for split in noisy.split],
        noisy.label,
        noisy.score,
        noisy.keep_rate,
    )
    with pytest.raises(MimError, match=r"different splits: 300 test films .* 0 in both; evaluate both") as error:
        compare_predictions(predictions, other, Settings(100))
    assert "\n" not in str(error.value)
    labels = 1 - noisy.label
    swapped = Predictions(noisy.image_id, noisy.patient_id, noisy.split, labels, noisy.score, noisy.keep_rate)
    with pytest.raises(MimError, match="another patient or label"):
        compare_predictions(predictions, swapped, Settings(100))


def test_films_that_one_model_could_not_score_are_left_to_neither(predictions: Predictions, noisy: Predictions) -> None:
    scores = noisy.score.copy()
    lost = [row for row, split in enumerate(noisy.split) if split == "test"][:5]
    scores[lost] = np.nan
    found = compare_predictions(predictions, with_scores(noisy, scores), Settings(100))
    kept = np.array([row not in lost and split == "test" for row, split in enumerate(predictions.split)])
    assert found["auroc"].first == pytest.approx(roc_auc_score(predictions.label[kept], predictions.score[kept]))


def test_one_class_compares_what_it_can(predictions: Predictions, noisy: Predictions) -> None:
    keep = np.array([s == "val" or own for s, own in zip(predictions.split, predictions.label == 1, strict=True)])
    found = compare_predictions(predictions.rows(keep), noisy.rows(keep), Settings(100))
    assert found["auroc"].difference.reason is not None
    assert found["sensitivity"].difference.low is not None
    section = comparison_section(found, ("one", "other"), Settings(100))
    assert "one class" in section.text[0]


def test_detectors_are_compared_in_whatever_order_their_images_stand(
    draw: Callable[..., tuple[Detections, Lesions]],
) -> None:
    first, lesions = draw(3, images=60)
    noise = np.random.default_rng(0).random(len(first.score))
    names = (first.image_id[::-1], first.patient_id[::-1], first.split[::-1])
    other = Detections(*names, len(first) - 1 - first.image, first.boxes, noise, first.label)
    found = compare_detections(first, other, lesions, Settings(150))
    assert {"ap", "ap50", "ap75", "froc", "lesion_sensitivity"} < set(found)
    assert found["ap50"].second < found["ap50"].first  # type: ignore[operator]
    same = Detections(*names, len(first) - 1 - first.image, first.boxes, first.score, first.label)
    assert compare_detections(first, same, lesions, Settings(150))["ap"].difference.value == pytest.approx(0, abs=0.01)
    with pytest.raises(MimError, match="different splits"):
        compare_detections(first, first.of("val"), lesions, Settings(100))
