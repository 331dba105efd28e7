"""How many steps, and which epoch a step is in."""

import math
from dataclasses import dataclass
from typing import Self

from mim.config import TrainingConfig
from mim.errors import MimError


@dataclass(frozen=True)
class Plan:
    """The length of a run.

    Attributes:
        total_steps: steps of the whole run.
        steps_per_epoch: steps of one pass over the films.
    """

    total_steps: int
    steps_per_epoch: int

    @classmethod
    def from_config(cls, config: TrainingConfig, steps_per_epoch: int) -> Self:
        """Takes `epochs` passes, or `max_steps` steps if these are fewer.

        Raises:
            MimError: a pass has no step: one step takes more films than there are.
        """
        if steps_per_epoch < 1:
            raise MimError("training.batch_size: one step takes more films than there are; lower it or accumulate")
        steps = config.epochs * steps_per_epoch
        return cls(min(steps, config.max_steps or steps), steps_per_epoch)

    def epoch(self, step: int) -> int:
        """The epoch, from 1, that a step is in; steps are counted from 1."""
        return math.ceil(step / self.steps_per_epoch)

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch, or the run, ends with a step; steps are counted from 1."""
        return step > 0 and (step % self.steps_per_epoch == 0 or step == self.total_steps)
