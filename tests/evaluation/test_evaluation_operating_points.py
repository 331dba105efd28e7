from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from mim.evaluation import Predictions, Settings, choose_threshold, operating_points_section
from mim.evaluation.bootstrap import sensitivity_at_statistic
from mim.evaluation.operating_points import operating_points


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6), st.integers(0, 3)), min_size=2, max_size=40),
    st.sampled_from([0.5, 0.7, 0.9, 0.95]),
)
def test_sensitivity_is_read_from_the_roc_curve_of_the_resample(
    films: list[tuple[int, int, int]], specificity: float
) -> None:
    labels, scores, weights = (np.array(column) for column in zip(*films, strict=True))
    written = np.repeat(np.arange(len(labels)), weights)
    assume(len(set(labels[written])) == 2)
    false, true, _ = roc_curve(labels[written], scores[written], drop_intermediate=False)
    expected = true[false <= 1 - specificity + 1e-9].max()
    found = sensitivity_at_statistic(labels, scores, specificity)(weights[None])
    assert found[0] == pytest.approx(expected, abs=1e-12)


def test_thresholds_come_from_validation_alone(predictions: Predictions) -> None:
    films = predictions.of("test")
    for point in operating_points(predictions, Settings(100)):
        assert point.threshold == choose_threshold(predictions.of("val"), point.specificity)
        called = films.score >= point.threshold.value
        assert point.figures["sensitivity"].value == pytest.approx(called[films.label == 1].mean())
        assert point.figures["specificity"].value == pytest.approx((~called)[films.label == 0].mean())
        assert point.figures["sensitivity"].low < point.figures["sensitivity"].value  # type: ignore[operator]


def test_the_section_names_both_ways_apart(predictions: Predictions) -> None:
    section = operating_points_section(predictions, Settings(100))
    assert set(section.figures) == {"specificity_0.90", "specificity_0.95"}
    assert {"threshold", "sensitivity", "specificity", "sensitivity_on_test_roc"} == set(
        section.figures["specificity_0.90"]
    )
    assert [row[0] for row in section.tables[0].rows] == ["0.90", "0.95"]


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_gives_the_other_half(make: Callable[..., Predictions], label: int) -> None:
    films = make(90)
    keep = [split == "val" or own == label for split, own in zip(films.split, films.label.tolist(), strict=True)]
    (point, _) = operating_points(films.rows(np.array(keep)), Settings(100))
    assert point.figures["sensitivity_on_test_roc"].value is None
    assert "both classes" in (point.figures["sensitivity_on_test_roc"].reason or "")
    assert (point.figures["specificity"].value is None) == (label == 1)
    assert (point.figures["sensitivity"].value is None) == (label == 0)
