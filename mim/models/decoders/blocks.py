"""Transformer blocks that answer for some of their tokens only."""

from functools import partial
from typing import Any

import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

norm_layer = partial(nn.LayerNorm, eps=1e-6)  # as in the published checkpoints of MAE


def create_blocks(width: int, depth: int, heads: int) -> nn.ModuleList:
    """Builds timm's pre-norm transformer blocks, as He et al. (2022) stack them."""
    return nn.ModuleList(Block(width, heads, qkv_bias=True, norm_layer=norm_layer) for _ in range(depth))


def answer_from(block: Any, tokens: Tensor, start: int) -> Tensor:
    """Runs a block of `create_blocks` for the tokens from `start` on; all of them are attended to.

    What the block makes of the tokens before `start` is not computed. What it makes of the others is as if it were.

    Args:
        block: a timm `Block`.
        tokens: (B, N, D).
        start: first token that is wanted.

    Returns:
        (B, N - start, D).
    """
    attention, width = block.attn, tokens.shape[-1]
    normal = block.norm1(tokens)
    weight, bias = attention.qkv.weight, attention.qkv.bias
    query = F.linear(normal[:, start:], weight[:width], bias[:width])
    key, value = F.linear(normal, weight[width:], bias[width:]).chunk(2, dim=-1)
    mixed = attend(query, key, value, attention.num_heads)
    tokens = tokens[:, start:] + attention.proj(mixed)
    return tokens + block.mlp(block.norm2(tokens))  # type: ignore[no-any-return]


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attends with several heads: query (B, M, D), key and value (B, N, D) -> (B, M, D)."""
    query, key, value = (x.view(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
