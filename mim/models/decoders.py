"""Rebuilding hidden cells from what the encoder made of the visible ones."""

import torch
import torch.nn.functional as F
from timm.models.convnext import ConvNeXtBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mim.errors import MimError
from mim.models.encoder import Encoder
from mim.models.features import Features, scatter_tokens
from mim.models.positions import sine_cosine_positions


class TransformerDecoder(nn.Module):
    """MAE's decoder: a shared mask token at every hidden cell, positions, a few blocks (He et al., 2022, section 3).

    Class and register tokens stay in the encoder.

    Args:
        encoder: whose patch tokens are decoded.
        width: channels.
        depth: blocks.
        heads: attention heads.
    """

    positions: Tensor

    def __init__(self, encoder: Encoder, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.mask_token, std=0.02)
        self.register_buffer("positions", sine_cosine_positions(encoder.grid(), width)[None], persistent=False)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, encoder.patch_size**2 * encoder.spec.in_chans)

    def forward(self, features: Features, visible: Tensor) -> Tensor:
        """Returns (B, gh * gw, patch_size ** 2 * C), a prediction for every cell, hidden or not."""
        assert features.tokens is not None
        assert features.index is not None
        tokens = self.embed(features.tokens)  # (B, N, width)
        canvas = self.mask_token.to(tokens.dtype).expand(len(tokens), visible[0].numel(), -1)
        tokens = scatter_tokens(tokens, features.index, canvas) + self.positions  # (B, gh * gw, width)
        return self.predict(self.norm(self.blocks(tokens)))  # type: ignore[no-any-return]


class ConvDecoder(nn.Module):
    """FCMAE's decoder: a mask token at hidden cells and ConvNeXt blocks on the coarsest map (Woo et al., 2023).

    Args:
        encoder: whose coarsest map is decoded.
        width: channels.
        depth: blocks.
    """

    def __init__(self, encoder: Encoder, width: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(encoder.map_channels[-1], width, 1)
        self.mask_token = nn.Parameter(torch.zeros(1, width, 1, 1))
        nn.init.normal_(self.mask_token, std=0.02)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth)))
        self.predict = nn.Conv2d(width, encoder.patch_size**2 * encoder.spec.in_chans, 1)

    def forward(self, features: Features, visible: Tensor) -> Tensor:
        """Returns (B, gh * gw, patch_size ** 2 * C), a prediction for every cell, hidden or not."""
        x = self.embed(self._to_grid(features.maps[-1], (visible.shape[1], visible.shape[2])))  # (B, width, gh, gw)
        x = torch.where(visible[:, None], x, self.mask_token.to(x.dtype))
        return self.predict(self.blocks(x)).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]

    @staticmethod
    def _to_grid(x: Tensor, grid: tuple[int, int]) -> Tensor:
        if x.shape[-2:] == grid:
            return x
        return F.adaptive_avg_pool2d(x, grid) if x.shape[-2] > grid[0] else F.interpolate(x, size=grid)


def create_decoder(encoder: Encoder, width: int = 192, depth: int = 2, heads: int = 6) -> nn.Module:
    """The decoder that fits an encoder: a transformer behind tokens, ConvNeXt blocks behind maps.

    Raises:
        MimError: if the heads do not divide the width, or the width is not a multiple of 4.
    """
    if encoder.spec.hidden == "sparse":
        return ConvDecoder(encoder, width, depth)
    if width % heads or width % 4:
        raise MimError(f"decoder.width={width} must be a multiple of 4 and of decoder.heads={heads}")
    return TransformerDecoder(encoder, width, depth, heads)
