"""One step: forward and backward over the accumulated batches."""

import hashlib
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from mim.config import RunConfig
from mim.training.signals import held_back

Batches = Callable[[int], Iterator[dict[str, Tensor]]]


@dataclass(frozen=True)
class Accumulated:
    """What the batches of a step came to on this rank.

    Attributes:
        means: mean over the batches of every scalar that the task gives.
        images: number of images.
        waited: seconds in which the loop waited for the batches; without workers that is the time of loading them.
        batches: what was met.
    """

    means: dict[str, Tensor]
    images: int
    waited: float
    batches: list[dict[str, Tensor]]


def derive_seed(seed: int, step: int, batch: int, rank: int) -> int:
    """Gives the seed of the noise inside a model, as a function of where the run stands.

    Args:
        seed: the run's.
        step: steps done.
        batch: which of the accumulated batches; -1 for validation, -2 for a look.
        rank: the rank.

    Returns:
        A number of 63 bits.
    """
    digest = hashlib.blake2b(f"{seed},{step},{batch},{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def draw_batches(batches: Batches, step: int) -> Generator[dict[str, Tensor], None, None]:
    """Draws batches in such a way that no stop signal reaches the processes that read them.

    Closing it lets go of the iterator that `batches` gave, and so ends these processes.

    Args:
        batches: given the number of steps done, gives batches without end.
        step: steps done.
    """
    with held_back():
        iterator = batches(step)
    while True:
        with held_back():
            batch = next(iterator)
        yield batch


def accumulate_gradient(
    fabric: Fabric, module: Any, batches: Iterator[dict[str, Tensor]], config: RunConfig, step: int
) -> Accumulated:
    """Adds up the gradient of the accumulated batches.

    Args:
        fabric: a launched Fabric.
        module: the task as Fabric set it up, without gradients.
        batches: from `draw_batches`; as many as `training.accumulate` says are taken.
        config: `seed` and `training.accumulate` are read.
        step: steps done.
    """
    accumulate = config.training.accumulate
    means: dict[str, Tensor] = {}
    images, waited = 0, 0.0
    met: list[dict[str, Tensor]] = []
    for batch_number in range(accumulate):
        began = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - began
        images += len(next(iter(batch.values())))
        batch = fabric.to_device(batch)
        met.append(batch)
        torch.manual_seed(derive_seed(config.seed, step, batch_number, fabric.global_rank))
        with fabric.no_backward_sync(module, enabled=batch_number < accumulate - 1):
            output: dict[str, Tensor] = module(batch)
            fabric.backward(output["loss"] / accumulate)
        for name, value in output.items():
            if value.ndim == 0:
                mean = value.detach().float() / accumulate
                means[name] = means[name] + mean if name in means else mean
    return Accumulated(means, images, waited, met)
