import math

import pytest
import timm
import torch
from timm.scheduler import CosineLRScheduler
from tiny_run import TinyTask
from torch import nn

from mim.config import OptimizerConfig
from mim.errors import MimError
from mim.training import build_optimizer, learning_rate
from mim.training.optimizer import build_average, set_learning_rate

BACKBONES = {
    "vit_tiny_patch16_224": {"img_size": 32, "embed_dim": 24, "depth": 3, "num_heads": 2, "reg_tokens": 2},
    "resnet10t": {},
    "convnext_atto": {"depths": (1, 1, 2, 1), "dims": (8, 8, 16, 16)},
    "hiera_tiny_224": {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 2, 1)},
}


def task_of(name: str) -> nn.Module:
    task = TinyTask()
    task.encoder.backbone = timm.create_model(name, num_classes=0, in_chans=1, **BACKBONES[name])
    return task


def settings_by_name(task: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    return {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("name", BACKBONES)
def test_every_parameter_is_in_one_group(name: str) -> None:
    task = task_of(name)
    optimizer = build_optimizer(task, OptimizerConfig(layer_decay=0.75))
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in task.parameters()}


@pytest.mark.parametrize("name", BACKBONES)
def test_norms_biases_and_embeddings_have_no_weight_decay(name: str) -> None:
    task = task_of(name)
    settings = settings_by_name(task, build_optimizer(task, OptimizerConfig(weight_decay=0.05)))
    exempt = {key for key, (_, decay) in settings.items() if decay == 0}
    wanted = {
        key
        for key, parameter in task.named_parameters()
        if parameter.ndim <= 1 or any(word in key for word in ("pos_embed", "cls_token", "reg_token", "mask_token"))
    }
    assert exempt == wanted
    assert {decay for _, decay in settings.values()} == {0.0, 0.05}


def test_rate_falls_layer_by_layer_in_the_backbone_only() -> None:
    task = task_of("vit_tiny_patch16_224")
    scale = {
        key: value[0]
        for key, value in settings_by_name(task, build_optimizer(task, OptimizerConfig(layer_decay=0.5))).items()
    }
    backbone = "encoder.backbone."
    assert scale["head.weight"] == scale["head.bias"] == scale["mask_token"] == scale[f"{backbone}norm.weight"] == 1
    blocks = [scale[f"{backbone}blocks.{index}.attn.qkv.weight"] for index in range(3)]
    assert blocks == pytest.approx([blocks[2] / 4, blocks[2] / 2, blocks[2]])
    assert scale[f"{backbone}patch_embed.proj.weight"] == pytest.approx(blocks[0] / 2)


def test_frozen_and_tied_parameters() -> None:
    task = TinyTask()
    task.tied = nn.Linear(16, 16, bias=False)
    task.tied.weight = task.encoder.backbone.blocks[0].attn.proj.weight
    task.head.bias.requires_grad_(False)
    grouped = [id(p) for group in build_optimizer(task, OptimizerConfig()).param_groups for p in group["params"]]
    assert len(grouped) == len(set(grouped)) == len([p for p in task.parameters() if p.requires_grad])
    assert id(task.head.bias) not in grouped
    with pytest.raises(MimError, match="no parameter that is trained"):
        build_optimizer(task.requires_grad_(False), OptimizerConfig())


def test_a_beta_of_one_is_refused() -> None:
    with pytest.raises(MimError, match=r"optimizer\.betas"):
        build_optimizer(TinyTask(), OptimizerConfig(betas=(0.9, 1.0)))


@pytest.mark.parametrize(("total", "warmup"), [(100, 0.05), (7, 0.3), (10, 0.0), (1000, 0.999)])
def test_rate_equals_timms_schedule_one_update_ahead(total: int, warmup: float) -> None:
    config = OptimizerConfig(lr=0.3, min_lr=1e-4, warmup=warmup)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.lr)
    warmup_steps = round(warmup * total)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=total - warmup_steps,
        lr_min=config.min_lr,
        warmup_t=warmup_steps,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    for step in range(total):
        schedule.step_update(step + 1)
        assert learning_rate(step, total, config) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


def test_rate_begins_above_zero_and_ends_at_the_least() -> None:
    config = OptimizerConfig(lr=1.0, min_lr=0.01, warmup=0.1)
    rates = [learning_rate(step, 50, config) for step in range(50)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[4] == 1.0
    assert rates[-1] == pytest.approx(0.01)
    assert learning_rate(0, 1, config) == pytest.approx(0.01)
    assert learning_rate(3, 4, OptimizerConfig(lr=1.0, warmup=1.0)) == 1.0


def test_groups_get_their_share_of_the_rate() -> None:
    config = OptimizerConfig(lr=0.3, layer_decay=0.5)
    optimizer = build_optimizer(task_of("vit_tiny_patch16_224"), config)
    for step in range(20):
        rate = learning_rate(step, 20, config)
        assert set_learning_rate(optimizer, step, 20, config) == rate
        assert {group["lr"] / group["lr_scale"] for group in optimizer.param_groups} == {rate}


def test_a_part_that_learns_in_some_of_the_training_has_a_schedule_of_its_own() -> None:
    task = TinyTask()
    network = (1.0, ((0.0, 0.5), (0.75, 1.0)))
    task.learning_plan = lambda: {"encoder": network, "head": (3.0, ((0.5, 1.0),))}
    config = OptimizerConfig(lr=0.1, min_lr=0.001, warmup=0.2)
    optimizer = build_optimizer(task, config)
    named = {id(parameter): name for name, parameter in task.named_parameters()}
    rates: dict[str, list[float]] = {name: [] for name in named.values()}
    highest = []
    for step in range(40):
        highest.append(set_learning_rate(optimizer, step, 40, config))
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                rates[named[id(parameter)]].append(group["lr"])
    own = [learning_rate(step, 30, config) for step in range(30)]
    encoder = rates["encoder.backbone.norm.weight"]
    assert encoder[:20] + encoder[30:] == own, "the steps between are not counted"
    assert rates["head.weight"][20:] == pytest.approx([3 * learning_rate(step, 20, config) for step in range(20)])
    assert rates["mask_token"] == [learning_rate(step, 40, config) for step in range(40)], "it is not named"
    assert highest[25] == rates["head.weight"][25]


def test_average_follows_the_weights_and_then_lags() -> None:
    task = TinyTask()
    assert build_average(task, OptimizerConfig()) is None
    average = build_average(task, OptimizerConfig(ema_decay=0.5))
    assert average is not None
    met = []
    for step in range(1, 40):
        with torch.no_grad():
            task.head.bias.fill_(float(step))
        average.update(task, step=step)
        met.append(average.module.head.bias[0].item())
    assert met[0] == 1
    assert met[-1] == pytest.approx(39 - 1, abs=0.01)  # a decay of one half lags by one step
    assert all(math.isfinite(value) for value in met)


def test_a_step_is_that_of_the_formula() -> None:
    """Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019, in float64."""
    task = TinyTask()
    config = OptimizerConfig(lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    optimizer = build_optimizer(task, config)
    weight = task.head.weight
    value, first, second = weight.detach().double(), 0.0, 0.0
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 6):
        weight.grad = torch.randn(weight.shape, generator=generator)
        gradient = weight.grad.double()
        first, second = 0.9 * first + 0.1 * gradient, 0.95 * second + 0.05 * gradient**2
        direction = (first / (1 - 0.9**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-8)
        value = value * (1 - 0.01 * 0.1) - 0.01 * direction
        for group in optimizer.param_groups:
            group["lr"] = config.lr * group["lr_scale"]
        optimizer.step()
    assert torch.allclose(weight.double(), value, atol=1e-6)
