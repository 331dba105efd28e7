import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from mim.errors import MimError
from mim.evaluation import Predictions, bootstrap
from mim.evaluation.bootstrap import (
    auroc_statistic,
    average_precision_statistic,
    mean_statistic,
    patient_weights,
    percentile_interval,
    resample_patients,
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.1, 0.2, 0.5, 0.9])), min_size=2, max_size=25),
    st.randoms(use_true_random=False),
)
def test_weighted_areas_are_those_of_the_written_out_resample(films: list[tuple[int, float]], random: Any) -> None:
    labels, scores = (np.array(column) for column in zip(*films, strict=True))
    weights = np.array([[random.randrange(4) for _ in films] for _ in range(5)])
    areas = auroc_statistic(labels, scores)(weights)
    precisions = average_precision_statistic(labels, scores)(weights)
    for row, area, precision in zip(weights, areas, precisions, strict=True):
        written = np.repeat(np.arange(len(films)), row)
        if len(set(labels[written])) < 2:
            assert np.isnan(area)
        else:
            assert area == pytest.approx(roc_auc_score(labels[written], scores[written]), abs=1e-12)
            assert precision == pytest.approx(average_precision_score(labels[written], scores[written]), abs=1e-12)


def test_every_resample_of_a_real_table_equals_scikit_learn(predictions: Predictions) -> None:
    (weights,) = patient_weights(predictions.patient_id, 40, seed=3)
    areas = auroc_statistic(predictions.label, predictions.score)(weights)
    precisions = average_precision_statistic(predictions.label, predictions.score)(weights)
    for row, area, precision in zip(weights, areas, precisions, strict=True):
        films = np.repeat(np.arange(len(predictions)), row)
        assert area == pytest.approx(roc_auc_score(predictions.label[films], predictions.score[films]), abs=1e-12)
        expected = average_precision_score(predictions.label[films], predictions.score[films])
        assert precision == pytest.approx(expected, abs=1e-12)


def test_a_mean_among_some_films_is_theirs() -> None:
    weights = np.array([[1, 2, 0, 3], [0, 1, 0, 0]])
    means = mean_statistic([1.0, 0.0, 5.0, 0.5], [True, False, True, True])(weights)
    assert means[0] == pytest.approx((1 + 3 * 0.5) / 4)
    assert np.isnan(means[1])


def test_films_of_a_patient_are_drawn_together(predictions: Predictions) -> None:
    (weights,) = patient_weights(predictions.patient_id, 50, seed=0)
    patients = np.array(predictions.patient_id)
    for name in set(patients):
        own = weights[:, patients == name]
        assert (own == own[:, :1]).all()
    firsts = weights[:, [predictions.patient_id.index(name) for name in dict.fromkeys(predictions.patient_id)]]
    assert (firsts.sum(axis=1) == len(set(patients))).all()


def test_repeating_every_film_narrows_no_interval(predictions: Predictions) -> None:
    once = predictions.rows(np.arange(0, len(predictions), 2))  # one film a patient
    many = np.repeat(np.arange(len(once)), 5)
    intervals = []
    for rows in (np.arange(len(once)), many):
        label, score = once.label[rows], once.score[rows]
        patients = [once.patient_id[row] for row in rows]
        statistics = {"auroc": auroc_statistic(label, score)}
        values = resample_patients(label, patients, statistics, resamples=300, seed=1).values["auroc"]
        intervals.append(percentile_interval(values, 0.95))
    assert intervals[0] == pytest.approx(intervals[1], abs=1e-12)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    truth, held = 0.5 * (1 + 0.5204998778), 0  # AUROC of two unit normals one apart: Phi(1 / sqrt 2)
    for seed in range(150):
        draws = np.random.default_rng(seed)
        labels = np.repeat([0, 1], 60)
        statistics = {"auroc": auroc_statistic(labels, draws.normal(labels, 1.0))}
        patients = [str(number) for number in range(120)]
        values = resample_patients(labels, patients, statistics, resamples=300, seed=seed).values["auroc"]
        low, high = percentile_interval(values, 0.9) or (1.0, 0.0)
        held += low <= truth <= high
    assert 0.82 <= held / 150 <= 0.97


def test_resamples_of_one_class_are_dropped_and_counted() -> None:
    labels, patients = np.array([1, 0, 0, 0]), ["a", "b", "c", "d"]
    statistics = {"auroc": auroc_statistic(labels, [0.9, 0.1, 0.2, 0.3]), "prevalence": mean_statistic(labels)}
    resampled = resample_patients(labels, patients, statistics, resamples=1000, seed=0)
    assert 250 < resampled.dropped < 400  # the positive patient is missed in (3 / 4) ** 4 = 32 % of them
    assert len(resampled.values["auroc"]) == len(resampled.values["prevalence"]) == 1000 - resampled.dropped
    assert np.isfinite(resampled.values["auroc"]).all()


def test_films_of_one_class_drop_nothing() -> None:
    resampled = resample_patients([0, 0], ["a", "b"], {"mean": mean_statistic([0.0, 1.0])}, resamples=50, seed=0)
    assert resampled.dropped == 0
    assert len(resampled.values["mean"]) == 50


def test_the_size_of_a_block_changes_nothing(predictions: Predictions, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = {"auroc": auroc_statistic(predictions.label, predictions.score)}
    draw: Callable[[], Any] = lambda: resample_patients(  # noqa: E731
        predictions.label, predictions.patient_id, statistics, resamples=90, seed=5
    ).values["auroc"]
    whole = draw()
    monkeypatch.setattr(bootstrap, "WEIGHTS_AT_A_TIME", 7 * len(predictions))
    assert np.array_equal(draw(), whole)


def test_two_thousand_resamples_of_five_hundred_films_take_less_than_two_seconds(
    make: Callable[..., Predictions],
) -> None:
    films = make(500, decimals=6)
    statistics = {
        "auroc": auroc_statistic(films.label, films.score),
        "auprc": average_precision_statistic(films.label, films.score),
    }
    start = time.perf_counter()
    resample_patients(films.label, films.patient_id, statistics, resamples=2000, seed=0)
    assert time.perf_counter() - start < 2


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(MimError, match="0 resamples"):
        resample_patients([0, 1], ["a", "b"], {}, resamples=0, seed=0)
    with pytest.raises(MimError, match="2 labels and 1 patients"):
        resample_patients([0, 1], ["a"], {}, resamples=9, seed=0)
    with pytest.raises(MimError, match="confidence is 95"):
        percentile_interval(np.array([0.5]), 95)
    assert percentile_interval(np.array([]), 0.95) is None
