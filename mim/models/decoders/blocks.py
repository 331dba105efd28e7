"""Transformer blocks that answer for some of their tokens only."""

from functools import partial
from typing import Any

import torch.nn.functional as F
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn

norm_layer = partial(nn.LayerNorm, eps=1e-6)  # as in the published checkpoints of MAE


def create_blocks(width: int, depth: int, heads: int) -> nn.ModuleList:
    """Builds timm's pre-norm transformer blocks, as He et al. (2022) stack them."""
    return nn.ModuleList(Block(width, heads, qkv_bias=True, norm_layer=norm_layer) for _ in range(depth))


def answer_from(block: Any, tokens: Tensor, start: int, bias: Tensor | None = None) -> Tensor:
    """Runs a block of `create_blocks` for the tokens from `start` on; all of them are attended to.

    What the block makes of the tokens before `start` is not computed. What it makes of the others is as if it were.

    Args:
        block: a timm `Block`.
        tokens: (B, N, D).
        start: first token that is wanted.
        bias: (B, 1, 1, N) added to the logits of attention, or None.

    Returns:
        (B, N - start, D).
    """
    attention, width = block.attn, tokens.shape[-1]
    normal = block.norm1(tokens)
    weight, offset = attention.qkv.weight, attention.qkv.bias
    query = F.linear(normal[:, start:], weight[:width], offset[:width])
    key, value = F.linear(normal, weight[width:], offset[width:]).chunk(2, dim=-1)
    tokens = tokens[:, start:] + attention.proj(attend(query, key, value, attention.num_heads, bias))
    return tokens + block.mlp(block.norm2(tokens))  # type: ignore[no-any-return]


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Attends with several heads: query (B, M, D), key and value (B, N, D) -> (B, M, D)."""
    query, key, value = (x.view(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2) for x in (query, key, value))
    bias = None if bias is None else bias.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2).flatten(2)


class CrossBlock(nn.Module):
    """A pre-norm block whose tokens attend to a context and not to each other (Fu et al., CrossMAE, section 3.2).

    Args:
        width: channels of the tokens.
        context_width: channels of the context.
        heads: attention heads.
    """

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = norm_layer(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(context_width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = norm_layer(width)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, tokens: Tensor, context: Tensor, bias: Tensor | None = None) -> Tensor:
        """Tokens (B, M, D), context (B, N, C), bias (B, 1, 1, N) on the logits or None -> (B, M, D)."""
        key, value = self.key_value(context).chunk(2, dim=-1)
        tokens = tokens + self.proj(attend(self.query(self.norm1(tokens)), key, value, self.heads, bias))
        return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]
