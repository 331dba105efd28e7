"""The slow reference of sparse hiding: everything is computed, and zeros are put back before anything mixes positions.

Tian et al., Designing BERT for Convolutional Networks (SparK), ICLR 2023: hooks around the layers of a plain timm
network. Nothing of mim is used, so that an error cannot be on both sides.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from timm.layers import BlurPool2d, EcaModule, SEModule
from timm.layers.grn import GlobalResponseNorm
from timm.layers.norm_act import BatchNormAct2d
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn

MIXERS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, BlurPool2d)
GATES = (SqueezeExcite, SEModule, EcaModule)


def at_size(visible: Tensor, height: int, width: int) -> Tensor:
    """(B, gh, gw) bool -> (B, 1, height, width) float."""
    cells = visible[:, None].float()
    if height < visible.shape[1]:
        return F.adaptive_max_pool2d(cells, (height, width))
    return F.interpolate(cells, size=(height, width), mode="nearest")


def masked_mean(x: Tensor, visible: Tensor) -> Tensor:
    mask = at_size(visible, x.shape[2], x.shape[3])
    return (x * mask).sum((2, 3), keepdim=True) / mask.sum((2, 3), keepdim=True).clamp(min=1e-6)


def batch_norm(norm: nn.BatchNorm2d, visible: Tensor) -> Callable[[Tensor], Tensor]:
    plain = norm.forward

    def forward(x: Tensor) -> Tensor:
        if not norm.training:
            return plain(x)
        seen = at_size(visible, x.shape[2], x.shape[3])[:, 0] > 0
        norm.num_batches_tracked.add_(1)
        rows = F.batch_norm(
            x.movedim(1, -1)[seen], norm.running_mean, norm.running_var, norm.weight, norm.bias, True, 0.1, norm.eps
        )
        output = torch.zeros_like(x.movedim(1, -1))
        output[seen] = rows
        output = output.movedim(-1, 1)
        return norm.act(output) if isinstance(norm, BatchNormAct2d) else output

    return forward


def channel_gate(gate: nn.Module, visible: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: x * weight_of(gate, masked_mean(x, visible))


def weight_of(gate: nn.Module, mean: Tensor) -> Tensor:
    if isinstance(gate, SqueezeExcite):
        return gate.gate(gate.conv_expand(gate.act1(gate.conv_reduce(mean))))
    if isinstance(gate, SEModule):
        return gate.gate(gate.fc2(gate.act(gate.fc1(mean))))
    return gate.gate(gate.conv(mean[:, None, :, 0, 0]))[:, 0, :, None, None]


@contextmanager
def masked(backbone: nn.Module, visible: Tensor) -> Iterator[None]:
    """Puts zeros at hidden positions before each layer of `backbone` that mixes positions."""

    def hide(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] * at_size(visible, inputs[0].shape[2], inputs[0].shape[3]),)

    def hide_last(module: GlobalResponseNorm, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if module.channel_dim == 1:
            return hide(module, inputs)
        return (hide(module, (inputs[0].permute(0, 3, 1, 2),))[0].permute(0, 2, 3, 1),)

    handles, replaced = [], []
    gated = {part for gate in backbone.modules() if isinstance(gate, GATES) for part in gate.modules()}
    for module in backbone.modules():
        if isinstance(module, GATES):
            module.forward = channel_gate(module, visible)
            replaced.append(module)
        elif isinstance(module, nn.BatchNorm2d):
            module.forward = batch_norm(module, visible)
            replaced.append(module)
        elif isinstance(module, GlobalResponseNorm):
            handles.append(module.register_forward_pre_hook(hide_last))
        elif isinstance(module, MIXERS) and module not in gated:
            handles.append(module.register_forward_pre_hook(hide))
    try:
        yield
    finally:
        for module in replaced:
            del module.forward
        for handle in handles:
            handle.remove()


def masked_dense_features(backbone: nn.Module, image: Tensor, visible: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Pooled features and maps, finest first, as an encoder gives them.

    Args:
        backbone: timm's model.
        image: (B, C, H, W); hidden pixels are zero.
        visible: (B, gh, gw) bool.
    """
    maps: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            maps[name] = output * at_size(visible, output.shape[2], output.shape[3])

        return hook

    names = [entry["module"] for entry in backbone.feature_info]
    handles = [backbone.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with masked(backbone, visible):
        final = backbone.forward_features(image)
    for handle in handles:
        handle.remove()
    return backbone.forward_head(masked_mean(final, visible), pre_logits=True), [maps[name] for name in names]
