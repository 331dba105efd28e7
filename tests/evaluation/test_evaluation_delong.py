import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mim.errors import MimError
from mim.evaluation.delong import delong

# Albumin, total protein, K-G score and outcome (0 = sick) of the ovarian cancer patients of DeLong et al. 1988
PATIENTS = np.fromstring(
    """
    3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1
    3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0
    2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1
    3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0
    3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1
    3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
    """,
    sep=" ",
).reshape(-1, 4)
SICK = (PATIENTS[:, 3] == 0).astype(int)
ALBUMIN, PROTEIN, SCORE = -PATIENTS[:, 0], -PATIENTS[:, 1], PATIENTS[:, 2]
NAMES = [str(number) for number in range(len(SICK))]


@pytest.mark.parametrize(
    ("scores", "area", "error", "interval"),
    [
        (ALBUMIN, 0.7366, 0.0927, (0.5549, 0.9182)),
        (SCORE, 0.7258, 0.1028, (0.5243, 0.9273)),
        (PROTEIN, 0.6478, 0.1000, (0.4518, 0.8439)),
    ],
)
def test_published_areas_and_intervals(
    scores: np.ndarray, area: float, error: float, interval: tuple[float, float]
) -> None:
    result = delong(SICK, NAMES, scores)
    assert result.covariance is not None
    assert result.areas[0] == pytest.approx(area, abs=5e-5)
    assert np.sqrt(result.covariance[0, 0]) == pytest.approx(error, abs=5e-5)
    assert result.interval(0.95) == pytest.approx(interval, abs=5e-5)


@pytest.mark.parametrize(
    ("scores", "difference", "interval", "p"),
    [(ALBUMIN, 0.0108, (-0.1761, 0.1976), 0.9102), (PROTEIN, -0.0780, (-0.2830, 0.1271), 0.4561)],
)
def test_published_comparisons(scores: np.ndarray, difference: float, interval: tuple[float, float], p: float) -> None:
    value, found, chance = delong(SICK, NAMES, SCORE, scores).difference(0.95)
    assert value == pytest.approx(difference, abs=5e-5)
    assert found == pytest.approx(interval, abs=5e-5)
    assert chance == pytest.approx(p, abs=5e-5)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 5)), min_size=6, max_size=30))
def test_covariance_is_that_of_all_pairs(films: list[tuple[int, int, int]]) -> None:
    labels, *sets = (np.array(column) for column in zip(*films, strict=True))
    assume(2 <= labels.sum() <= len(labels) - 2)
    above, below = [], []
    for scores in sets:
        positives, negatives = scores[labels == 1][:, None], scores[labels == 0]
        wins = (positives > negatives) + 0.5 * (positives == negatives)
        above.append(wins.mean(axis=1))
        below.append(wins.mean(axis=0))
    expected = np.cov(above) / labels.sum() + np.cov(below) / (labels == 0).sum()
    result = delong(labels, [str(number) for number in range(len(labels))], *sets)
    assert result.covariance == pytest.approx(expected, abs=1e-12)
    assert result.areas == pytest.approx([roc_auc_score(labels, scores) for scores in sets], abs=1e-12)


def test_copies_of_films_of_the_same_patients_add_no_certainty() -> None:
    once = delong(SICK, NAMES, SCORE, ALBUMIN)
    twice = delong(np.tile(SICK, 2), NAMES * 2, np.tile(SCORE, 2), np.tile(ALBUMIN, 2))
    apart = delong(np.tile(SICK, 2), [str(n) for n in range(2 * len(SICK))], np.tile(SCORE, 2), np.tile(ALBUMIN, 2))
    assert once.covariance is not None
    assert apart.covariance is not None
    assert twice.covariance == pytest.approx(once.covariance, abs=1e-12)
    assert apart.covariance[0, 0] < 0.55 * once.covariance[0, 0]


def test_no_interval_where_there_is_no_variance() -> None:
    assert delong([0, 0, 1, 1], list("abcd"), [0.1, 0.2, 0.8, 0.9]).interval(0.95) is None
    assert delong(SICK, NAMES, SCORE, 2 * SCORE).difference(0.95) == (0, None, None)
    assert delong([0, 1, 1], list("abc"), [0.1, 0.0, 0.9]).covariance is None


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [([1, 1], [0.1, 0.2], "one class"), ([0, 1], [0.1, np.nan], "not a finite"), ([0, 1], [0.1], "one value a film")],
)
def test_bad_input_is_refused(labels: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(MimError, match=message):
        delong(labels, ["a", "b"], scores)
