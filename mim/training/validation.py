"""Asking the caller for figures at the end of an epoch, without disturbing the training."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from torch import nn

from mim.training.signals import held_back

EpochEnd = Callable[[int, int, nn.Module], Mapping[str, float]]


def validate(
    fabric: Fabric, module: nn.Module, on_epoch_end: EpochEnd, *, step: int, epoch: int, seed: int
) -> dict[str, float]:
    """Calls a function with a module in eval mode, without gradients, under the precision of the training.

    Args:
        fabric: a launched Fabric.
        module: the module whose weights count; its modes come back afterwards, part by part.
        on_epoch_end: the function.
        step: steps done.
        epoch: the epoch that ended, from 1.
        seed: seed of whatever is random in it.

    Returns:
        The figures that it gave.
    """
    torch.manual_seed(seed)
    with held_back(), evaluating(module), torch.no_grad(), fabric.autocast():
        return {name: float(value) for name, value in on_epoch_end(step, epoch, module).items()}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module into eval mode for a while; each of its parts then goes back to the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
