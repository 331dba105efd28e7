"""MAE's decoder."""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mim.models.encoder import Encoder
from mim.models.features import Features, scatter_tokens
from mim.models.positions import sine_cosine_positions
from mim.models.prediction import Prediction


class TransformerDecoder(nn.Module):
    """MAE's decoder: a shared mask token at every hidden cell, positions, a few blocks (He et al., 2022, section 3).

    Class and register tokens stay in the encoder.

    Args:
        encoder: whose patch tokens are decoded.
        size: numbers to predict for a cell.
        width: channels.
        depth: blocks.
        heads: attention heads.
    """

    positions: Tensor

    def __init__(self, encoder: Encoder, size: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.mask_token, std=0.02)
        self.register_buffer("positions", sine_cosine_positions(encoder.grid(), width)[None], persistent=False)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, size)

    def forward(self, features: Features, visible: Tensor) -> Prediction:
        """Predicts every cell, hidden or not."""
        assert features.tokens is not None
        assert features.index is not None
        tokens = self.embed(features.tokens)  # (B, N, width)
        canvas = self.mask_token.to(tokens.dtype).expand(len(tokens), visible[0].numel(), -1)
        tokens = scatter_tokens(tokens, features.index, canvas) + self.positions  # (B, gh * gw, width)
        return Prediction(self.predict(self.norm(self.blocks(tokens))))
