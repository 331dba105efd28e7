import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mim.errors import MimError
from mim.evaluation import Predictions, difference_over_seeds, paired_difference


@pytest.fixture
def films(predictions: Predictions) -> Predictions:
    return predictions


def noisy(films: Predictions, spread: float, seed: int) -> np.ndarray:
    return films.score + np.random.default_rng(seed).normal(0, spread, len(films))


def test_the_difference_is_that_of_two_aurocs(films: Predictions) -> None:
    worse = noisy(films, 0.5, 0)
    found = paired_difference(films.label, films.patient_id, worse, films.score, resamples=400)
    expected = roc_auc_score(films.label, films.score) - roc_auc_score(films.label, worse)
    assert found.value == expected
    assert found.auroc_a == roc_auc_score(films.label, worse)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < found.value < found.high


def test_a_model_does_not_differ_from_itself(films: Predictions) -> None:
    found = paired_difference(films.label, films.patient_id, films.score, films.score, resamples=100)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_swapping_the_models_turns_the_interval_round(films: Predictions) -> None:
    one, other = noisy(films, 0.2, 1), noisy(films, 0.2, 2)
    there = paired_difference(films.label, films.patient_id, one, other, resamples=300)
    back = paired_difference(films.label, films.patient_id, other, one, resamples=300)
    assert there.value == -(back.value or 0)
    assert there.low == pytest.approx(-(back.high or 0))
    assert there.high == pytest.approx(-(back.low or 0))


def test_pairing_is_narrower_than_treating_the_models_as_strangers(films: Predictions) -> None:
    nearly = noisy(films, 0.02, 3)
    paired = paired_difference(films.label, films.patient_id, films.score, nearly, resamples=400)
    shuffled = np.random.default_rng(4).permutation(films.score)
    alone = paired_difference(films.label, films.patient_id, shuffled, films.score, resamples=400)
    assert (paired.high or 0) - (paired.low or 0) < 0.3 * ((alone.high or 0) - (alone.low or 0))


def test_one_seed_is_the_paired_difference(films: Predictions) -> None:
    worse = noisy(films, 0.5, 0)
    one = difference_over_seeds(films.label, films.patient_id, [(worse, films.score)], resamples=200, seed=9)
    assert one == paired_difference(films.label, films.patient_id, worse, films.score, resamples=200, seed=9)


def test_seeds_that_disagree_widen_the_interval(films: Predictions) -> None:
    better, worse = films.score, noisy(films, 1.5, 0)
    agreeing = difference_over_seeds(films.label, films.patient_id, [(worse, better)] * 4, resamples=400)
    disagreeing = difference_over_seeds(
        films.label, films.patient_id, [(worse, better), (better, worse)] * 2, resamples=400
    )
    assert disagreeing.value == pytest.approx(0)
    assert disagreeing.seeds == 4
    assert (disagreeing.high or 0) - (disagreeing.low or 0) > 1.5 * ((agreeing.high or 0) - (agreeing.low or 0))


def test_the_mean_is_over_seeds(films: Predictions) -> None:
    runs = [(noisy(films, 0.5, seed), noisy(films, 0.1, 10 + seed)) for seed in range(3)]
    found = difference_over_seeds(films.label, films.patient_id, runs, resamples=100)
    each = [roc_auc_score(films.label, b) - roc_auc_score(films.label, a) for a, b in runs]
    assert found.value == pytest.approx(np.mean(each))


def test_one_class_has_no_difference_and_says_so() -> None:
    found = paired_difference([0, 0], ["a", "b"], [0.1, 0.2], [0.2, 0.3], resamples=10)
    assert found.value is None
    assert "one class" in (found.reason or "")


def test_one_patient_has_no_interval_and_says_so() -> None:
    found = paired_difference([0, 1], ["a", "a"], [0.1, 0.2], [0.3, 0.2], resamples=10)
    assert found.value == -1
    assert found.low is None
    assert "one patient" in (found.reason or "")


def test_columns_that_do_not_fit_are_refused(films: Predictions) -> None:
    with pytest.raises(MimError, match="pair 1 must be 300 numbers"):
        paired_difference(films.label, films.patient_id, films.score[:5], films.score)
    with pytest.raises(MimError, match="pair 1 must be"):
        paired_difference([0, 1], ["a", "b"], [0.1, float("nan")], [0.1, 0.2])
    with pytest.raises(MimError, match="no runs"):
        difference_over_seeds(films.label, films.patient_id, [])
