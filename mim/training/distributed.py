"""Devices, precision and ranks, by Lightning Fabric."""

import logging
import os
from collections.abc import Callable
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy

from mim.config import TrainingConfig
from mim.errors import MimError

Result = TypeVar("Result")


def make_fabric(config: TrainingConfig, *, find_unused_parameters: bool = False) -> Fabric:
    """Sets up this process: its device, its precision and, under torchrun, its place among the ranks.

    Under torchrun the ranks train one task by distributed data parallel, over gloo on the CPU and nccl on GPUs. Without
    torchrun there is one process.

    Args:
        config: `accelerator` and `precision` are read.
        find_unused_parameters: set it where a step may leave parameters without a gradient (a masker that is not yet
            asked, for one); it costs a walk through the graph at every step.

    Returns:
        A Fabric that is launched.

    Raises:
        MimError: there is no GPU, or there are fewer GPUs than ranks on this machine.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    accelerator = _accelerator(config.accelerator)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if accelerator == "cuda" and ranks_here > torch.cuda.device_count():
        raise MimError(
            f"torchrun: {ranks_here} ranks and {torch.cuda.device_count()} GPUs on this machine; "
            f"lower --nproc-per-node, or give training.accelerator=cpu"
        )
    if ranks > 1:
        strategy = DDPStrategy(
            process_group_backend="nccl" if accelerator == "cuda" else "gloo",
            find_unused_parameters=find_unused_parameters,
        )
        environment = TorchElasticEnvironment()
    else:
        strategy, environment = "auto", LightningEnvironment()
    fabric = Fabric(
        accelerator=accelerator,
        strategy=strategy,
        devices=ranks_here,
        num_nodes=max(ranks // ranks_here, 1),
        precision=config.precision,
        plugins=[environment],
    )
    fabric.launch()
    return fabric


def on_rank_zero(fabric: Fabric, work: Callable[[], Result]) -> Result:
    """Does something once, on rank 0, while the other ranks wait for it.

    Args:
        fabric: a launched Fabric.
        work: called on rank 0 only; what it returns is sent to every rank.

    Returns:
        What `work` returned, on every rank.

    Raises:
        MimError: on every rank, if `work` raised one.
    """
    if fabric.world_size == 1:
        return work()
    result: Result | None = None
    failure: MimError | None = None
    if fabric.is_global_zero:
        try:
            result = work()
        except MimError as error:
            failure = error
    result, message = fabric.broadcast((result, failure and str(failure)))
    if message is not None:
        raise failure or MimError(message)
    return result


def _accelerator(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise MimError("training.accelerator=cuda: PyTorch sees no GPU; give training.accelerator=auto or cpu")
    return wanted
