"""Holding what the encoder makes of visible cells against its teacher."""

import torch
from torch import Tensor, nn

from mim.models.encoder import Encoder
from mim.models.features import Features, take_cells
from mim.models.targets.latent import LatentTarget, cell_vectors, smooth_l1


class VisibleDistillation(nn.Module):
    """Draws the encoder's own tokens of visible cells, behind one linear layer, towards those of its teacher.

    The teacher saw the whole image and the encoder a part of it. (Almalki and Latecki, Enhanced Masked
    Image Modeling for Analysis of Dental Panoramic Radiographs, 2023, add such a loss on visible patches to SimMIM.)

    Args:
        encoder: the one that is trained.
        latent: the target with the teacher.
    """

    name = "distill_visible"

    def __init__(self, encoder: Encoder, latent: LatentTarget) -> None:
        super().__init__()
        self.grid = encoder.grid()
        self.project = nn.Linear(latent.size, latent.size)

    def forward(self, features: Features, visible: Tensor, right: Tensor) -> Tensor:
        """Computes the smooth L1, a scalar: mean over the visible cells of an image, then over images.

        Args:
            features: of the encoder under `visible`.
            visible: (B, gh, gw) bool.
            right: (B, gh * gw, D), the targets of all cells.
        """
        seen = visible.flatten(1)
        if features.tokens is None or features.index is None:
            tokens = cell_vectors(features, self.grid)
        else:
            tokens, right = features.tokens, take_cells(right, features.index)
            seen = take_cells(seen[..., None], features.index)[..., 0] & (features.index >= 0)
        error = torch.where(seen, smooth_l1(self.project(tokens), right), 0)
        return (error.sum(dim=1) / seen.sum(dim=1).clamp(min=1)).mean()
