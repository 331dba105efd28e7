"""Looking at a run at some of its steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

Look = Callable[[int, int, nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class Looks:
    """What is looked at, and when.

    Attributes:
        steps: the steps after which to look, from 1.
        look: called on rank 0 only, with the steps done, the epoch (from 1) and the module whose weights count, in eval
            mode and without gradients. It gives figures to log. It must not talk to the other ranks, which wait for it.
    """

    steps: frozenset[int]
    look: Look


def log_spaced(total: int, count: int) -> list[int]:
    """Chooses steps in about the same ratio to each other: most is learnt, and most goes wrong, early.

    Args:
        total: steps of the run; the last is always chosen.
        count: how many to choose; all of them where there are fewer; 0 = none.

    Returns:
        Different steps, rising, from 1 to `total`; only the last one where one is wanted.
    """
    if count <= 1:
        return [total] * count
    count = min(count, total)
    steps = [1]
    for place in range(1, count):
        steps.append(max(steps[-1] + 1, round(total ** (place / (count - 1)))))
    return steps
