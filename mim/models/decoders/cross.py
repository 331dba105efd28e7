"""CrossMAE's decoder."""

import torch
from torch import Tensor, nn

from mim.models.decoders.blocks import CrossBlock, norm_layer
from mim.models.decoders.hidden import hidden_places
from mim.models.encoder import Encoder
from mim.models.features import Features
from mim.models.positions import sine_cosine_positions
from mim.models.prediction import Prediction
from mim.models.tokens import padding_bias


class CrossDecoder(nn.Module):
    """CrossMAE's decoder: hidden cells ask the visible ones and never each other (Fu et al., 2024).

    As no hidden cell depends on another, only a share of them has to be decoded in training. All blocks look at the
    encoder's last layer; the weighted sums of its layers that the paper also has are left out.

    Args:
        encoder: whose patch tokens are asked.
        size: numbers to predict for a cell.
        width: channels.
        depth: blocks.
        heads: attention heads.
        share: of the hidden cells that are decoded in training.
    """

    positions: Tensor

    def __init__(self, encoder: Encoder, size: int, width: int, depth: int, heads: int, share: float = 1.0) -> None:
        super().__init__()
        self.share = share
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.mask_token, std=0.02)
        self.register_buffer("positions", sine_cosine_positions(encoder.grid(), width)[None], persistent=False)
        self.blocks = nn.ModuleList(CrossBlock(width, encoder.width, heads) for _ in range(depth))
        self.norm = norm_layer(width)
        self.predict = nn.Linear(width, size)

    def forward(self, features: Features, visible: Tensor) -> Prediction:
        """Predicts the hidden cells; in training a share of them."""
        assert features.tokens is not None
        assert features.index is not None
        kept = features.tokens.shape[1] if features.even else None
        hidden, _ = hidden_places(visible, kept, self.share if self.training else 1.0)
        bias = None if features.even else padding_bias(features.index)[:, None, None]
        tokens = self.mask_token + self.positions[0][hidden.clamp(min=0)]  # (B, M, width)
        for block in self.blocks:
            tokens = block(tokens, features.tokens, bias)
        return Prediction(self.predict(self.norm(tokens)), hidden)
