"""The attention that a vision transformer pays to each cell."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from mim.models.encoder import Encoder


def without_attention(encoder: Encoder) -> str | None:
    """Says why an encoder has no attention of one token to all cells; None where it has."""
    backbone = encoder.backbone
    blocks = backbone.blocks if isinstance(backbone, VisionTransformer) else []
    if len(blocks) and all(isinstance(block, Block) and isinstance(block.attn, Attention) for block in blocks):
        return None
    return f"a {type(backbone).__name__} has no attention of one token to all patches"


def attention_to_cells(encoder: Encoder, image: Tensor, blocks: int = 1) -> Tensor:
    """Attention that the class token pays to each cell, or without one the mean query of the cells, all being seen.

    Args:
        encoder: one of which `without_attention` says nothing.
        image: (B, C, H, W), normalised.
        blocks: how many of the last blocks are averaged.

    Returns:
        (B, gh * gw), mean over heads and blocks; what the prefix tokens get is left out.
    """
    backbone = encoder.backbone
    tokens = backbone.norm_pre(backbone._pos_embed(backbone.patch_embed(image)))
    first, paid = max(len(backbone.blocks) - blocks, 0), []
    for depth, block in enumerate(backbone.blocks):
        if depth >= first:
            normed = block.norm1(tokens)
            paid.append(attention_paid(block.attn, normed, backbone.num_prefix_tokens, backbone.cls_token is not None))
        if depth + 1 < len(backbone.blocks):
            tokens = block(tokens)
    return torch.stack(paid).mean(dim=0)


def attention_paid(attention: nn.Module, tokens: Tensor, prefix: int, has_class_token: bool) -> Tensor:
    """Attention that the class token, or else the mean query of the patches, pays to each patch.

    Args:
        attention: timm's, with `qkv`, `q_norm`, `k_norm`, `num_heads` and `scale`.
        tokens: (B, P + N, D), normed for this attention.
        prefix: P, tokens before those of patches, the class token first.
        has_class_token: whether there is one.

    Returns:
        (B, N) float, mean over heads.
    """
    qkv = attention.qkv(tokens)  # type: ignore[operator]  # timm is not typed
    heads = attention.num_heads
    queries, keys, _ = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, P + N, d)
    queries, keys = attention.q_norm(queries), attention.k_norm(keys)  # type: ignore[operator]
    query = queries[:, :, :1] if has_class_token else queries[:, :, prefix:].mean(dim=2, keepdim=True)
    weights: Tensor = (query.float() @ keys.float().transpose(-2, -1) * attention.scale).softmax(
        dim=-1
    )  # (B, heads, 1, P + N)
    return weights[:, :, 0, prefix:].mean(dim=1)


@contextmanager
def observing(encoder: Encoder) -> Iterator[None]:
    """Looks without leaving a trace: no gradient, no dropout, no statistics of norms; then as it was."""
    training = [module for module in encoder.modules() if module.training]
    encoder.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
