from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from mim.evaluation import Predictions, Settings, calibration_section
from mim.evaluation.calibration import (
    bins_of,
    calibration_error_statistic,
    fit_temperature,
    in_the_large_statistic,
    logit,
    recalibration_statistic,
)
from mim.evaluation.calibration_section import reliability


def scored(films: int, seed: int = 0, steepness: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    odds = draws.normal(0, 1.5, films)
    labels = (draws.random(films) < 1 / (1 + np.exp(-odds))).astype(int)
    return labels, 1 / (1 + np.exp(-steepness * odds))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_slope_and_intercept_are_those_of_logistic_regression_on_the_written_out_resample(seed: int) -> None:
    labels, scores = scored(120, seed)
    weights = np.random.default_rng(seed).integers(0, 4, (3, 120))
    found = recalibration_statistic(labels, scores)(weights)
    for row, (intercept, slope) in zip(weights, found, strict=True):
        films = np.repeat(np.arange(120), row)
        fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=2000).fit(logit(scores[films])[:, None], labels[films])
        assert intercept == pytest.approx(fit.intercept_[0], abs=1e-4)
        assert slope == pytest.approx(fit.coef_[0, 0], abs=1e-4)


def test_in_the_large_makes_the_mean_score_right() -> None:
    labels, scores = scored(500)
    shift = in_the_large_statistic(labels, scores)(np.ones((1, 500), dtype=int))[0]
    assert (1 / (1 + np.exp(-logit(scores) - shift))).mean() == pytest.approx(labels.mean(), abs=1e-9)


@pytest.mark.parametrize(("kind", "strategy"), [("width", "uniform"), ("mass", "quantile")])
@pytest.mark.parametrize("decimals", [1, 2, 8])
def test_ece_is_that_of_the_bins_of_scikit_learn(kind: str, strategy: str, decimals: int) -> None:
    labels, scores = scored(400)
    scores = np.round(scores, decimals)
    positives, means = calibration_curve(labels, scores, n_bins=10, strategy=strategy)
    members = bins_of(scores, kind)  # type: ignore[arg-type]
    counts = np.bincount(members)
    expected = np.sum(np.abs(positives - means) * counts[counts > 0]) / 400
    found = calibration_error_statistic(labels, scores, members)(np.ones((1, 400), dtype=int))
    assert found[0] == pytest.approx(expected, abs=1e-12)


def test_temperature_has_the_largest_likelihood() -> None:
    labels, scores = scored(600, steepness=2.5)
    temperature = fit_temperature(labels, scores)
    fit = LogisticRegression(C=np.inf, tol=1e-10, fit_intercept=False).fit(logit(scores)[:, None], labels)
    assert temperature.value == pytest.approx(1 / fit.coef_[0, 0], abs=1e-4)
    assert temperature.value == pytest.approx(2.5, rel=0.2)
    scaled = temperature.scale(scores)
    assert (np.argsort(scaled, kind="stable") == np.argsort(scores, kind="stable")).all()
    assert recalibration_statistic(labels, scaled)(np.ones((1, 600), dtype=int))[0, 1] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 1], [0.3, 0.7], "not of both classes"),
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], "lie on one side"),
        ([0, 0, 1, 1], [0.9, 0.4, 0.2, 0.6], "do not rise with the label"),
    ],
)
def test_no_temperature_is_made_up(labels: list[int], scores: list[float], message: str) -> None:
    temperature = fit_temperature(labels, scores)
    assert temperature.value is None
    assert message in (temperature.reason or "")


def test_scores_that_part_the_classes_have_no_slope() -> None:
    weights = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 0]])
    found = recalibration_statistic([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4])(weights)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1:]).all()


def test_the_section_gives_figures_with_intervals_before_and_after(predictions: Predictions) -> None:
    section = calibration_section(predictions, Settings(200))
    before, after = section.figures["test"], section.figures["test_after_temperature"]
    assert all(own["low"] <= own["value"] <= own["high"] for own in (before["brier"], before["slope"]))
    assert before["slope"]["value"] == pytest.approx(after["slope"]["value"] / section.figures["temperature"]["value"])
    assert sum(own["films"] for own in section.figures["reliability"]) == len(predictions.of("test"))
    assert len(section.plots) == 1
    assert "Reliability diagram" in section.plots[0].drawing


def test_bins_of_the_diagram_are_means_of_their_films(predictions: Predictions) -> None:
    test = predictions.of("test")
    bins = reliability(test, test.score, Settings(100))
    positives = sum(own.films * (own.positives.value or 0) for own in bins)
    assert positives == pytest.approx(test.label.sum())
    assert sum(own.films * own.mean_score for own in bins) == pytest.approx(test.score.sum())


def test_one_class_and_no_films_crash_nothing(make: Callable[..., Predictions]) -> None:
    films = make(60)
    section = calibration_section(films.rows(films.label == 0), Settings(100))
    assert section.figures["test"]["brier"]["value"] is not None
    assert "one class" in section.figures["test"]["slope"]["reason"]
    empty = calibration_section(films.of("val"), Settings(100))
    assert empty.figures["test"]["brier"]["reason"] == "there are no films"
    assert empty.plots == ()
