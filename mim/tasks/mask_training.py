"""How a learned masker and the network behind it are trained: in stages, so that neither can lean on the other."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from mim.masking.mask import Mask

Stage = Literal["network", "masker", "joint"]
Rebuilding = Callable[[Tensor, Mask], Tensor]  # image with pixels in [0, 1], mask -> scalar


@dataclass(frozen=True)
class MaskTraining:
    """The recipe.

    A mask learnt together with its head can carry the label in its shape. So they learn one after the other:

    - A, `network`: encoder and head learn under random masks, which say nothing; the masker rests.
    - B, `masker`: the masker learns; encoder and head are frozen, statistics of norms included, and so cannot come to
      an understanding with it.
    - C, `joint`, if wanted: all learn; part of each batch still meets random masks, where a shape that was relied on
      would be wrong.

    Attributes:
        stages: shares of the training that A, B and C take; their sum is 1.
        random_keep: range of the share of cells that random masks keep, drawn anew for each batch.
        random_share: C: share of a batch that meets random masks.
        task: B and C: weight of the error of the task seen through the mask.
        follow: B: what the masked film must come to. `label`: its class. `network`: what the frozen network says of the
            whole film; the masker then never hears of a label, and what looks like a finding is shown in every film.
        supervised: weight of the cross entropy to the cells that hold a lesion (`batch["lesion"]`).
        reconstruction: weight of the error with which a pretrained model rebuilds what is hidden.
        budget: final weight of the squared distance between the expected and the wanted share of visible cells.
        budget_ramp: share of B in which that weight rises, along half a cosine, from a tenth to its final value.
        lr_scale: learning rate of the masker, as a multiple of that of the head.

    Raises:
        ValueError: the shares do not sum to 1, or there is nothing that a masker would learn from.
    """

    stages: tuple[float, float, float] = (0.5, 0.5, 0.0)
    random_keep: tuple[float, float] = (0.1, 1.0)
    random_share: float = 0.5
    task: float = 1.0
    follow: Literal["label", "network"] = "label"
    supervised: float = 0.0
    reconstruction: float = 0.0
    budget: float = 1.0
    budget_ramp: float = 0.5
    lr_scale: float = 2.0

    def __post_init__(self) -> None:
        if abs(sum(self.stages) - 1) > 1e-6:
            raise ValueError(f"stages {list(self.stages)}: the shares of A, B and C must sum to 1")
        if self.stages[1] + self.stages[2] > 0 and not (self.task or self.supervised or self.reconstruction):
            raise ValueError("task, supervised and reconstruction are all 0: the masker has nothing to learn from")
        low, high = self.random_keep
        if low > high:
            raise ValueError(f"random_keep {list(self.random_keep)}: the smaller share comes first")

    def stage(self, progress: float) -> Stage:
        """Which stage a share of the training, in [0, 1], lies in."""
        first, second, third = self.stages
        if progress < first or second + third == 0:
            return "network"
        return "masker" if third == 0 or progress < first + second else "joint"

    def budget_weight(self, progress: float) -> float:
        """Weight of the budget at a share of the training: low at first, so that what matters shows before it presses.

        It is never 0: without it all gates may close at once.
        """
        ramp = self.budget_ramp * self.stages[1]
        share = min(max(progress - self.stages[0], 0.0) / ramp, 1.0) if ramp else 1.0
        return self.budget * (0.1 + 0.9 * (1 - math.cos(math.pi * share)) / 2)

    def spans(self, part: Literal["network", "masker"]) -> tuple[tuple[float, float], ...]:
        """Shares of the training between which a part learns."""
        first, second, _ = self.stages
        spans = ((0.0, first), (first + second, 1.0)) if part == "network" else ((first, 1.0),)
        return tuple((begin, end) for begin, end in spans if end - begin > 1e-9)
