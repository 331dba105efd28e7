"""AdamW with layer-wise decay, its learning rate at every step, and the moving average of the weights."""

import fnmatch
import math
from collections.abc import Mapping
from typing import Final

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import nn

from mim.config import OptimizerConfig
from mim.errors import MimError

Spans = tuple[tuple[float, float], ...]  # shares of the training, from and to
WHOLE: Final[Spans] = ((0.0, 1.0),)
_EMBEDDINGS = ("*pos_embed*", "*_token", "*_tokens", "*_tokens.*")


def build_optimizer(task: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Builds AdamW for a task whose `encoder.backbone` is a timm model.

    The backbone's learning rate falls by `layer_decay` from each layer to the one below it, the last one and the rest
    of the task being at the full rate; layers are timm's (Bao et al., BEiT, 2022). Norms, biases and embeddings have
    no weight decay.

    If the task has a method `learning_plan`, that names parts which learn in some of the training only: for each a
    factor on its learning rate and the shares of the training between which it learns. Warm-up and cosine of such a
    part are over the steps in which it learns.

    Args:
        task: any task.
        config: its settings.

    Returns:
        An optimizer whose groups carry `lr_scale` and `spans`; `set_learning_rate` sets their rates before each step.

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

    planned = _plan_by_parameter(task)
    merged: dict[tuple[float, float, Spans], list[nn.Parameter]] = {}
    for group in groups:
        for parameter in group["params"]:
            factor, spans = planned.get(id(parameter), (1.0, WHOLE))
            key = (group.get("lr_scale", 1.0) * factor, group["weight_decay"], spans)
            merged.setdefault(key, []).append(parameter)
    if not any(merged.values()):
        raise MimError("the task has no parameter that is trained; unfreeze the encoder or give it a head")
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr_scale": lr_scale, "weight_decay": weight_decay, "spans": spans}
            for (lr_scale, weight_decay, spans), parameters in merged.items()
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


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, total_steps: int, config: OptimizerConfig) -> float:
    """Gives each group of an optimizer of `build_optimizer` its learning rate for a step.

    Args:
        optimizer: from `build_optimizer`.
        step: steps done before this one.
        total_steps: steps of the whole run.
        config: `lr`, `min_lr` and `warmup` are read.

    Returns:
        The highest rate of a group that learns in this step.
    """
    highest = 0.0
    for group in optimizer.param_groups:
        steps = [_steps_of(span, total_steps) for span in group["spans"]]
        length = sum(end - begin for begin, end in steps)
        done = sum(min(max(step - begin, 0), end - begin) for begin, end in steps)
        # after its last step a part rests, whatever its rate
        rate = learning_rate(min(done, length - 1), length, config) if length else 0.0
        group["lr"] = rate * group["lr_scale"]
        if any(begin <= step < end for begin, end in steps):
            highest = max(highest, group["lr"])
    return highest


def _steps_of(span: tuple[float, float], total_steps: int) -> tuple[int, int]:
    """The steps of which a share of the run lies in a span: the first, and the one after the last."""
    begin, end = (math.ceil(share * total_steps - 1e-9) for share in span)
    return begin, end


def _plan_by_parameter(task: nn.Module) -> dict[int, tuple[float, Spans]]:
    """What `learning_plan` says, for each parameter of the parts that it names."""
    plan = getattr(task, "learning_plan", None)
    named: Mapping[str, tuple[float, Spans]] = plan() if callable(plan) else {}
    return {id(parameter): said for name, said in named.items() for parameter in task.get_submodule(name).parameters()}


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
