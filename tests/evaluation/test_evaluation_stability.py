import numpy as np
import pytest

from mim.errors import MimError
from mim.evaluation.stability import selection_stability


def test_the_same_selection_each_time_is_wholly_stable():
    stability = selection_stability([[1, 0, 0, 1, 0]] * 4)
    assert stability.value == pytest.approx(1)
    assert stability.low == stability.high == pytest.approx(1)


def test_selections_drawn_at_random_are_stable_by_chance_alone_whatever_their_size():
    rng = np.random.default_rng(0)
    for size in (3, 30):
        table = np.array([rng.permutation([1] * size + [0] * (60 - size)) for _ in range(200)])
        assert abs(selection_stability(table).value) < 0.02


def test_of_selections_of_equal_size_it_is_kunchevas_index():
    """Nogueira et al., section 4: mean over all pairs of (r - k^2 / d) / (k - k^2 / d), r = what both hold."""
    rng = np.random.default_rng(1)
    table = np.array([rng.permutation([1] * 4 + [0] * 8) for _ in range(7)])
    pairs = [(table[i] @ table[j] - 16 / 12) / (4 - 16 / 12) for i in range(7) for j in range(i)]
    assert selection_stability(table).value == pytest.approx(np.mean(pairs))


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    chance = np.r_[np.full(6, 0.8), np.full(24, 0.1)]
    share = chance.mean()
    truth = 1 - (chance * (1 - chance)).mean() / (share * (1 - share))
    inside = 0
    for _ in range(300):
        stability = selection_stability(rng.random((40, 30)) < chance)
        inside += stability.low <= truth <= stability.high
    assert 0.89 < inside / 300 < 0.99


def test_what_cannot_be_said_has_a_reason():
    assert selection_stability([[1, 1], [1, 1]]).value is None
    assert "always" in str(selection_stability([[0, 0], [0, 0]]).reason)
    for bad in ([[1, 0]], [[1, 2], [0, 1]], [1, 0]):
        with pytest.raises(MimError, match="stability"):
            selection_stability(bad)
