from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mim.evaluation import Predictions, choose_threshold, choose_worst


def table(films: list[tuple[int, float]], split: str = "val") -> Predictions:
    names = [f"film{number}" for number in range(len(films))]
    labels, scores = zip(*films, strict=True) if films else ((), ())
    return Predictions(names, names, [split] * len(films), labels, scores, [1.0] * len(films))  # type: ignore[arg-type]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20).map(lambda tenth: tenth / 20)), max_size=30),
    st.sampled_from([0.07, 0.5, 0.57, 0.7, 0.9, 0.99]),
)
def test_it_is_the_smallest_score_met_that_is_specific_enough(
    films: list[tuple[int, float]], specificity: float
) -> None:
    negatives = [score for label, score in films if label == 0]
    fitting = [
        candidate
        for candidate in sorted({score for _, score in films})
        if negatives and sum(score < candidate for score in negatives) / len(negatives) >= specificity
    ]
    threshold = choose_threshold(table(films), specificity)
    assert threshold.value == (fitting[0] if fitting else None)
    assert (threshold.reason is None) == bool(fitting)


def test_a_share_that_is_met_exactly_is_enough() -> None:
    films = [(0, number / 100) for number in range(100)]
    assert choose_threshold(table(films), 0.07).value == 0.07  # 7 of 100; 0.07 * 100 is more than 7 in floating point
    assert choose_threshold(table(films), 0.29).value == 0.29


def test_ties_are_called_alike() -> None:
    films = [(0, 0.1), (0, 0.5), (0, 0.5), (1, 0.5), (1, 0.8)]
    assert choose_threshold(table(films), 0.5).value == 0.8


@pytest.mark.parametrize(
    ("films", "reason"),
    [
        ([], "no validation films"),
        ([(1, 0.4)], "no negative film"),
        ([(0, 0.7), (0, 0.7), (1, 0.7)], "without calling all of them negative"),
    ],
)
def test_where_there_is_none_the_reason_is_given(films: list[tuple[int, float]], reason: str) -> None:
    threshold = choose_threshold(table(films), 0.9)
    assert threshold.value is None
    assert reason in (threshold.reason or "")


def test_the_worst_errors_come_first(make: Callable[..., Predictions]) -> None:
    films = make(400)
    missed, alarmed = choose_worst(films, 0.5, 4)
    test = np.array([split == "test" for split in films.split])
    assert films.score[missed].tolist() == sorted(films.score[test & (films.label == 1) & (films.score < 0.5)])[:4]
    expected = sorted(films.score[test & (films.label == 0) & (films.score >= 0.5)], reverse=True)[:4]
    assert films.score[alarmed].tolist() == expected
    assert set(films.label[missed]) == {1}
    assert {films.split[row] for row in missed + alarmed} == {"test"}


def test_errors_that_tie_stand_in_the_order_of_the_table() -> None:
    films = table([(1, 0.2), (0, 0.9), (1, 0.2), (0, 0.9), (1, 0.1)], "test")
    assert choose_worst(films, 0.5, 9) == ([4, 0, 2], [1, 3])


def test_without_a_threshold_or_a_count_nothing_is_an_error(predictions: Predictions) -> None:
    assert choose_worst(predictions, None, 5) == ([], [])
    assert choose_worst(predictions, 0.5, 0) == ([], [])
