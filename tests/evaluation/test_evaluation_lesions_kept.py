import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mim.errors import MimError
from mim.evaluation import Intervals
from mim.evaluation.lesion_recall import recall_figure
from mim.evaluation.lesions_kept import last_thresholds, threshold_for_recall
from mim.evaluation.threshold_plot import ThresholdCurve, threshold_picture


def drawn(seed, lesions=12, levels=None):
    rng = np.random.default_rng(seed)
    scores = rng.random((lesions, 4, 5)) if levels is None else rng.integers(levels, size=(lesions, 4, 5)) / levels
    area = rng.random((lesions, 4, 5)) * (rng.random((lesions, 4, 5)) > 0.6) + 1e-9
    return scores.astype(np.float32), area / area.sum(axis=(1, 2), keepdims=True)


def seen(scores, area, threshold, keep):
    kept = scores >= threshold if keep == "above" else scores <= threshold
    return (kept * area).sum(axis=(1, 2)) >= 0.5 - 1e-6


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["above", "below"]), st.sampled_from([None, 3]), st.floats(0.1, 1))
def test_the_threshold_is_the_last_that_leaves_the_wanted_share(seed, keep, levels, recall):
    scores, area = drawn(seed, levels=levels)
    last = last_thresholds(scores, area, keep)
    for one, (values, cells) in enumerate(zip(scores, area, strict=True)):
        further = np.unique(values[values > last[one]] if keep == "above" else values[values < last[one]])
        assert seen(values[None], cells[None], last[one], keep).all()
        assert not any(seen(values[None], cells[None], other, keep).any() for other in further)
    chosen = threshold_for_recall(last, recall, keep)
    assert seen(scores, area, chosen, keep).mean() >= recall - 1e-6
    further = scores[scores > chosen] if keep == "above" else scores[scores < chosen]
    for other in np.unique(further)[:: max(1, len(np.unique(further)) // 5)]:
        assert seen(scores, area, other, keep).mean() < recall


def test_all_lesions_visible_is_not_certain():
    figure = recall_figure(np.ones(20), [f"p{i % 5}" for i in range(20)], Intervals(100))
    assert (figure.value, figure.high) == (1.0, 1.0)
    assert figure.low == pytest.approx(0.025 ** (1 / 5))
    none = recall_figure(np.ones(0), [], Intervals(100))
    assert none.value is None
    assert "no lesions" in none.reason


def test_an_interval_is_of_patients():
    """Twenty lesions of two patients, all seen in one and none in the other, are two facts."""
    figure = recall_figure(np.repeat([1.0, 0.0], 10), ["a"] * 10 + ["b"] * 10, Intervals(500, 0.9))
    assert (figure.low, figure.value, figure.high) == (0.0, 0.5, 1.0)


@pytest.mark.parametrize(("last", "recall", "message"), [([], 0.9, "no lesion"), ([0.5], 0.0, "recall is 0.0")])
def test_what_cannot_be_chosen_is_refused(last, recall, message):
    with pytest.raises(MimError, match=message):
        threshold_for_recall(np.array(last), recall, "above")


def test_the_picture_is_the_same_for_the_same_scores_and_holds_where_all_are_equal():
    curve = ThresholdCurve(np.array([0.2, 0.2]), np.array([1.0, 1.0]), np.array([np.nan, np.nan]))
    for cells in (np.full(50, 0.2), np.random.default_rng(0).random(50)):
        first, second = (threshold_picture(cells, cells[:0], curve, 0.2, 0.98, "intensity") for _ in range(2))
        assert first == second
        assert first.startswith(b"\x89PNG")
