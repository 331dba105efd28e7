"""An order of samples in which every class comes equally often."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mim.data.seed import derive_seed


class BalancedStream:
    """An endless order of samples with equally many of each class in each epoch, for `RankBatches`.

    Each class goes round its own samples, in a new order each time: the samples of a rare class come again and again,
    equally often, and those of a common one all have their turn, over several epochs. What comes again does so with
    another number of its round, so that it is changed at random in another way. The order is a function of the seed and
    the epoch.

    Args:
        labels: Class of each sample.
        seed: Of the orders.

    Raises:
        ValueError: There are no samples.
    """

    def __init__(self, labels: Sequence[int] | NDArray[np.int64], seed: int) -> None:
        given = np.asarray(labels, dtype=np.int64)
        if not len(given):
            raise ValueError("a stream needs at least one sample")
        self._members = [np.flatnonzero(given == label) for label in np.unique(given)]
        self._quota = max(1, len(given) // len(self._members))  # samples of each class in an epoch
        self.count = self._quota * len(self._members)
        self._seed = seed
        self._epoch = -1
        self._rounds: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def __getitem__(self, position: int) -> tuple[int, int]:
        """Return the round of its class and the sample at a position, counted from the start of training."""
        epoch, place = divmod(position, self.count)
        if epoch != self._epoch:
            self._rounds, self._order = self._draw(epoch)
            self._epoch = epoch
        return int(self._rounds[place]), int(self._order[place])

    def _draw(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rounds and samples of an epoch, in their order."""
        rounds, samples = [], []
        for number, members in enumerate(self._members):
            turns = np.arange(epoch * self._quota, (epoch + 1) * self._quota)
            own, places = np.divmod(turns, len(members))
            for turn in np.unique(own):
                order = np.random.default_rng(derive_seed(self._seed, "class order", number, int(turn)))
                samples.append(members[order.permutation(len(members))[places[own == turn]]])
            rounds.append(own)
        mixed = np.random.default_rng(derive_seed(self._seed, "order", epoch)).permutation(self.count)
        return np.concatenate(rounds)[mixed], np.concatenate(samples)[mixed]
