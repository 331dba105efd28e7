"""Attention rollout: how much of each cell reaches the answer of a vision transformer, by its attention alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mim.models.encoder import Encoder


def has_rollout(encoder: Encoder) -> bool:
    """Whether every block of an encoder lets each token attend to all others, in a way that can be read."""
    backbone = encoder.backbone
    if not isinstance(backbone, VisionTransformer | Eva):
        return False
    return all(hasattr(getattr(block, "attn", None), "attn_drop") for block in backbone.blocks)


def mix_with_identity(attention: Tensor) -> Tensor:
    """What a block passes on: half by its attention, averaged over heads, half by the shortcut around it.

    Args:
        attention: (B, heads, N, N), rows add up to 1.

    Returns:
        (B, N, N), rows add up to 1.
    """
    mean = attention.float().mean(dim=1)
    identity = torch.eye(mean.shape[-1], device=mean.device)
    return 0.5 * mean + 0.5 * identity


@torch.no_grad()
def rollout_matrix(encoder: Encoder, image: Tensor, visible: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention rollout (Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020).

    The attention of each block, mixed with the identity, is multiplied through the blocks.

    Args:
        encoder: a ViT for which `has_rollout` holds, in evaluation mode.
        image: (B, C, H, W), normalised.
        visible: (B, gh, gw) bool, as many cells of each image; None = all seen.

    Returns:
        (B, P + N, P + N) what of each token, class and register tokens first, reaches each; rows add up to 1. And
        (B, N) the places of the cells.

    Raises:
        ValueError: the encoder has no such attention, or the images show different numbers of cells.
    """
    if not has_rollout(encoder):
        raise ValueError(f"a {type(encoder.backbone).__name__} has no attention of each token to all others")
    with _reading_attention(encoder.backbone) as met:
        features = encoder(image, visible)
    assert features.index is not None
    if (features.index < 0).any():
        raise ValueError("attention rollout takes images that show equally many cells")
    rollout = mix_with_identity(met[0])
    for attention in met[1:]:
        rollout = mix_with_identity(attention) @ rollout
    return rollout, features.index


def attention_rollout(encoder: Encoder, image: Tensor, visible: Tensor | None) -> Tensor:
    """How much of each cell reaches what is pooled: the class token, or the mean of the visible cells.

    Args:
        encoder: as for `rollout_matrix`.
        image: (B, C, H, W), normalised.
        visible: (B, gh, gw) bool; None = all seen.

    Returns:
        (B, gh, gw), zero at hidden cells.

    Raises:
        ValueError: as `rollout_matrix`.
    """
    rollout, index = rollout_matrix(encoder, image, visible)
    prefix = encoder.backbone.num_prefix_tokens
    pooled_by_token = encoder.backbone.global_pool == "token"
    if visible is not None and index.shape[1] == visible[0].numel():  # mask tokens are no cells that are seen
        queries = torch.cat([visible.new_zeros(len(visible), prefix), visible.flatten(1)], dim=1).float()
    else:
        queries = (torch.arange(rollout.shape[1], device=rollout.device) >= prefix).float().expand(len(rollout), -1)
    mean = (queries[:, None] @ rollout)[:, 0] / queries.sum(dim=1, keepdim=True).clamp(min=1)
    paid = (rollout[:, 0] if pooled_by_token else mean)[:, prefix:]
    rows, columns = encoder.grid()
    laid = paid.new_zeros(len(paid), rows * columns).scatter(1, index, paid).view(-1, rows, columns)
    return laid if visible is None else laid * visible


@contextmanager
def _reading_attention(backbone: Any) -> Iterator[list[Tensor]]:
    """Lets the blocks compute their attention step by step and keeps it; afterwards all is as it was."""
    met: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        met.append(args[0])

    layers = [block.attn for block in backbone.blocks]
    fused = [layer.fused_attn for layer in layers]
    handles = [layer.attn_drop.register_forward_hook(keep) for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False
        yield met
    finally:
        for layer, before, handle in zip(layers, fused, handles, strict=True):
            layer.fused_attn = before
            handle.remove()
