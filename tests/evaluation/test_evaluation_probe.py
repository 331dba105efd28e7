import math

import numpy as np
import pytest
from scipy.special import softmax

from mim.errors import MimError
from mim.evaluation import linear_probe, nearest_neighbours, rankme

RANDOM = np.random.default_rng(0)


def orthogonal(rows: int, columns: int) -> np.ndarray:
    return np.linalg.qr(RANDOM.normal(size=(rows, columns)))[0]


@pytest.mark.parametrize(
    ("singular", "rank"),
    [
        ([3.0], 1.0),
        ([2.0, 2.0, 2.0, 2.0], 4.0),
        ([1.0, 1.0, 0.0, 0.0], 2.0),
        ([0.5, 0.25, 0.25, 0.0], math.exp(0.5 * math.log(2) + 0.5 * math.log(4))),
    ],
)
def test_rankme_is_the_exponential_of_the_entropy_of_the_singular_values(singular: list[float], rank: float) -> None:
    left, right = orthogonal(50, len(singular)), orthogonal(12, len(singular))
    table = 7.5 * (left * singular) @ right.T
    assert rankme(table) == pytest.approx(rank, rel=1e-4)


def test_rankme_of_what_has_no_rank() -> None:
    assert math.isnan(rankme(np.full((4, 3), np.nan)))
    assert math.isnan(rankme(np.zeros((4, 3))))
    assert rankme(np.ones((40, 8))) == pytest.approx(1, rel=1e-4)
    with pytest.raises(MimError, match=r"shape \(3,\)"):
        rankme(np.ones(3))


def films(classes: int, apart: float, count: int = 240) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(classes)
    label = random.integers(classes, size=count)
    table = random.normal(size=(count, 16)) + apart * np.eye(16)[label]
    return table[: count // 2], label[: count // 2], table[count // 2 :], label[count // 2 :]


@pytest.mark.parametrize("classes", [2, 4])
def test_probes_find_classes_that_are_apart_and_none_in_noise(classes: int) -> None:
    assert linear_probe(*films(classes, 6.0)) > 0.98
    assert nearest_neighbours(*films(classes, 6.0), neighbours=20) > 0.98
    assert abs(linear_probe(*films(classes, 0.0)) - 0.5) < 0.12
    assert abs(nearest_neighbours(*films(classes, 0.0), neighbours=20) - 0.5) < 0.12


def test_the_vote_is_weighed_by_likeness_in_direction() -> None:
    known = np.array([[1.0, 0.0], [0.0, 5.0], [-1.0, 0.0]])
    asked = np.array([[3.0, 2.9], [2.9, 3.0]])
    cosine = asked @ (known / np.linalg.norm(known, axis=1, keepdims=True)).T / np.linalg.norm(asked, axis=1)[:, None]
    votes = softmax(cosine[:, :2] / 0.07, axis=1)
    assert votes[0, 1] < 0.5 < votes[1, 1]
    assert nearest_neighbours(known, [0, 1, 0], asked, [0, 1], neighbours=2) == 1.0
    assert nearest_neighbours(known, [0, 1, 0], asked, [1, 0], neighbours=2) == 0.0
    assert nearest_neighbours(100 * known, [0, 1, 0], asked, [0, 1], neighbours=9) == 1.0


def test_what_cannot_be_measured_is_not_a_number() -> None:
    known, label, asked, right = films(2, 3.0)
    assert math.isnan(linear_probe(known, label, asked, np.zeros_like(right)))
    assert math.isnan(linear_probe(known, np.zeros_like(label), asked, right))
    assert math.isnan(nearest_neighbours(known * np.nan, label, asked, right, neighbours=3))
