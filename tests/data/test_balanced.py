from collections import Counter

import pytest

from mim.data.balanced import BalancedStream
from mim.data.loader import RankBatches


def test_balanced_epochs_hold_all_classes_equally_often() -> None:
    labels = [0] * 70 + [1] * 20 + [2] * 11
    stream = BalancedStream(labels, 3)
    assert stream.count == 99
    met: Counter[int] = Counter()
    for epoch in range(21):
        films = [stream[epoch * 99 + place][1] for place in range(99)]
        assert Counter(labels[film] for film in films) == {0: 33, 1: 33, 2: 33}
        met.update(films)
    for label in (0, 1, 2):
        counts = [met[film] for film in range(101) if labels[film] == label]
        assert max(counts) - min(counts) <= 1, "every film of a class is met equally often"
    places = [stream[position] for position in range(21 * 99)]
    assert len(set(places)) == len(places), "what comes again is changed in another way"


def test_balanced_order_follows_from_seed_and_position_alone() -> None:
    labels = [0, 0, 0, 0, 0, 1, 1]
    places = [BalancedStream(labels, 5)[position] for position in range(40)]
    stream = BalancedStream(labels, 5)
    assert [stream[position] for position in reversed(range(40))][::-1] == places
    assert [BalancedStream(labels, 6)[position] for position in range(40)] != places
    two = [list(RankBatches(BalancedStream(labels, 5), 2, 2, rank, 1, 3, 8)) for rank in (0, 1)]
    one = list(RankBatches(BalancedStream(labels, 5), 4, 1, 0, 1, 3, 8))
    assert [first + second for first, second in zip(*two, strict=True)] == one
    with pytest.raises(ValueError, match="at least one sample"):
        BalancedStream([], 0)
