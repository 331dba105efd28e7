"""FCMAE's decoder."""

import torch
import torch.nn.functional as F
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from mim.models.encoder import Encoder
from mim.models.features import Features
from mim.models.prediction import Prediction


class ConvDecoder(nn.Module):
    """FCMAE's decoder: a mask token at hidden cells and ConvNeXt blocks on the coarsest map (Woo et al., 2023).

    Args:
        encoder: whose coarsest map is decoded.
        size: numbers to predict for a cell.
        width: channels.
        depth: blocks.
    """

    def __init__(self, encoder: Encoder, size: int, width: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(encoder.map_channels[-1], width, 1)
        self.mask_token = nn.Parameter(torch.zeros(1, width, 1, 1))
        nn.init.normal_(self.mask_token, std=0.02)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth)))
        self.predict = nn.Conv2d(width, size, 1)

    def forward(self, features: Features, visible: Tensor) -> Prediction:
        """Predicts every cell, hidden or not."""
        x = self.embed(self._to_grid(features.maps[-1], (visible.shape[1], visible.shape[2])))  # (B, width, gh, gw)
        x = torch.where(visible[:, None], x, self.mask_token.to(x.dtype))
        return Prediction(self.predict(self.blocks(x)).flatten(2).transpose(1, 2))

    @staticmethod
    def _to_grid(x: Tensor, grid: tuple[int, int]) -> Tensor:
        if x.shape[-2:] == grid:
            return x
        return F.adaptive_avg_pool2d(x, grid) if x.shape[-2] > grid[0] else F.interpolate(x, size=grid)
