"""AdamW with layer-wise decay, its learning rate at every step, and the moving average of the weights."""

import fnmatch
import math

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import nn

from mim.config import OptimizerConfig
from mim.errors import MimError

_EMBEDDINGS = ("*pos_embed*", "*_token", "*_tokens", "*_tokens.*")


def build_optimizer(task: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Builds AdamW for a task whose `encoder.backbone` is a timm model.

    The backbone's learning rate falls by `layer_decay` from each layer to the one below it, the last one and the rest
    of the task being at the full rate; layers are timm's (Bao et al., BEiT, 2022). Norms, biases and embeddings have
    no weight decay.

    Args:
        task: any task.
        config: its settings.

    Returns:
        An optimizer whose groups carry `lr_scale`; `set_learning_rate` sets their rates before each step.

    Raises:
        MimError: a beta is 1, or the task has nothing to train.
    """
    for beta in config.betas:
        if beta >= 1:
            raise MimError(f"optimizer.betas: {beta} must be below 1, as in [0.9, 0.95]")
    backbone = task.get_submodule("encoder.backbone")
    in_backbone = {id(parameter) for parameter in backbone.parameters()}
    groups = param_groups_layer_decay(
        backbone, config.weight_decay, _exempt_from_decay(backbone), layer_decay=config.layer_decay
    )
    for group in param_groups_weight_decay(task, config.weight_decay, True, _exempt_from_decay(task)):
        rest = [parameter for parameter in group["params"] if id(parameter) not in in_backbone]
        groups.append({**group, "params": rest})

    merged: dict[tuple[float, float], list[nn.Parameter]] = {}
    for group in groups:
        merged.setdefault((group.get("lr_scale", 1.0), group["weight_decay"]), []).extend(group["params"])
    if not any(merged.values()):
        raise MimError("the task has no parameter that is trained; unfreeze the encoder or give it a head")
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr_scale": lr_scale, "weight_decay": weight_decay}
            for (lr_scale, weight_decay), parameters in merged.items()
            if parameters
        ],
        lr=config.lr,
        betas=config.betas,
        fused=True,  # one pass over each parameter instead of ten: several times as fast, on the CPU too
    )


def learning_rate(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """Gives the learning rate of a step: a linear rise to the peak, then a cosine (Loshchilov and Hutter, SGDR, 2017).

    It is a function of the step alone, so a run that goes on needs no state of a scheduler. The first step is above 0,
    the last step of the warm-up is at the peak and the last step of all at `min_lr`.

    Args:
        step: steps done before this one; from 0 to total_steps - 1.
        total_steps: steps of the whole run.
        config: `lr`, `min_lr` and `warmup` are read.
    """
    warmup = round(config.warmup * total_steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step + 1 - warmup) / (total_steps - warmup)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * progress)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Gives each group of an optimizer of `build_optimizer` its share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def build_average(task: nn.Module, config: OptimizerConfig) -> ModelEmaV3 | None:
    """Builds the moving average of a task's weights, or None where `ema_decay` is null.

    The average is over few steps at first and lengthens until its decay is `ema_decay`, so that a short run is not
    weighed down by the weights that it began with.
    """
    if config.ema_decay is None:
        return None
    return ModelEmaV3(task, decay=config.ema_decay, use_warmup=True)


def _exempt_from_decay(module: nn.Module) -> set[str]:
    """Names of the embeddings of a module and of whatever its parts say is exempt by timm's `no_weight_decay`."""
    patterns = set(_EMBEDDINGS)
    for prefix, part in module.named_modules():
        exempt = getattr(part, "no_weight_decay", None)
        if callable(exempt):
            patterns |= {f"{prefix}.{name}" if prefix else name for name in exempt()}
    return {
        name for name, _ in module.named_parameters() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
