"""What a step came to: read at once, or while the device works on the next step."""

import math
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor

from mim.training.step import Accumulated


@dataclass(frozen=True)
class StepResult:
    """What a step came to, over all its batches and all ranks.

    Attributes:
        figures: the loss and its named parts, and the norm of the gradient before clipping.
        images: images that were met.
        waited: seconds in which the loop waited for batches, mean over the ranks.
        stop: whether any rank was asked to stop.
        problem: what is not finite, the loss or the gradient; None where both are.
    """

    figures: dict[str, float]
    images: int
    waited: float
    stop: bool
    problem: str | None = None


class Reading:
    """The figures of a step on their way from the device, averaged over the ranks.

    All ranks get the same, and so judge alike whether the step counts and whether one of them must stop.

    Args:
        fabric: a launched Fabric.
        ours: what this rank has; its scalars go by the same names on all ranks.
        gradient_norm: norm of the gradient before clipping, the same on all ranks.
        step: steps done with this one.
        rate: the step's learning rate.
        stop: whether this rank was asked to stop.

    Attributes:
        step: as given.
        rate: as given.
        batches: what this rank met.
        bad: scalar bool on the device: the loss or the gradient is not finite.
    """

    def __init__(
        self, fabric: Fabric, ours: Accumulated, gradient_norm: Tensor, *, step: int, rate: float, stop: bool
    ) -> None:
        self.step = step
        self.rate = rate
        self.batches = ours.batches
        self._names = list(ours.means)
        self._ranks = fabric.world_size
        known = torch.tensor([float(ours.images), ours.waited, float(stop)])
        if gradient_norm.is_cuda:
            known = known.pin_memory().to(gradient_norm.device, non_blocking=True)
        reduced = fabric.all_reduce(
            torch.stack([*ours.means.values(), gradient_norm.float(), *known]), reduce_op="mean"
        )
        assert isinstance(reduced, Tensor)
        loss, norm = reduced[self._names.index("loss")], reduced[len(self._names)]
        self.bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
        self._arrived: torch.cuda.Event | None = None
        self._values = reduced
        if reduced.is_cuda:
            self._values = torch.empty(reduced.shape, pin_memory=True)
            self._values.copy_(reduced, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def read(self) -> StepResult:
        """Waits for the figures, if they are not there yet."""
        if self._arrived is not None:
            self._arrived.synchronize()
        *values, norm, images, waited, stopped = self._values.tolist()
        figures = dict(zip(self._names, values, strict=True))
        not_finite = (
            f"the {name} is {value}"
            for name, value in (("loss", figures["loss"]), ("gradient", norm))
            if not math.isfinite(value)
        )
        return StepResult(
            {**figures, "gradient_norm": norm},
            round(images * self._ranks),
            waited,
            stopped > 0,
            next(not_finite, None),
        )
