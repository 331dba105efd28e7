"""Networks that help a masker and are not trained with it."""

from typing import Self

import torch
from torch import Tensor, nn

from mim.masking.mask import Mask
from mim.models.encoder import Encoder
from mim.models.features import Features, places, take_cells
from mim.models.masked_image_model import MaskedImageModel


class FrozenTokens(nn.Module):
    """The coarsest map of an encoder that sees the whole film and stays as it is.

    Args:
        encoder: its weights get no gradient from now on, and it stays in evaluation mode.
        mean: subtracted from pixels in [0, 1].
        std: what the difference is divided by.
    """

    def __init__(self, encoder: Encoder, mean: float, std: float) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.mean = mean
        self.std = std

    def train(self, mode: bool = True) -> Self:
        """Leaves it in evaluation mode, whatever is asked for."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) with pixels in [0, 1] -> (B, D, gh, gw)."""
        features: Features = self.encoder((image - self.mean) / self.std)
        return features.maps[-1]


class RebuildingError:
    """How badly a pretrained model, which stays as it is, rebuilds what a mask hides from what it shows.

    Not a module: its weights are no part of what is trained, saved or exported.

    Args:
        model: of a finished pretraining run.
    """

    def __init__(self, model: MaskedImageModel) -> None:
        self.model = model.requires_grad_(False).eval()

    def __call__(self, image: Tensor, mask: Mask) -> Tensor:
        """Mean error over the hidden cells of an image, then over images.

        The gradient reaches a gate in two ways: an open cell helps, by attention or convolution, to rebuild the others;
        and a closed one has an error of its own, which opening it would take away.

        Args:
            image: (B, C, H, W) with pixels in [0, 1].
            mask: over the model's grid, with gates of exactly 0 or 1.

        Returns:
            Scalar.

        Raises:
            ValueError: the mask has no gate.
        """
        if mask.gate is None:
            raise ValueError("the error of rebuilding teaches a masker that answers with gates")
        model = self.model.to(image.device)
        shown = (image - model.mean) / model.std
        features = self._features(model.encoder, shown, mask)
        errors, prediction = model.predicted_errors(shown, features, mask.visible)
        closed = 1 - prediction.take(mask.gate.flatten(1)[..., None])[..., 0]  # (B, M)
        weight = prediction.counted(mask.visible) * closed
        return ((errors * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)).mean()

    @staticmethod
    def _features(encoder: Encoder, image: Tensor, mask: Mask) -> Features:
        """What the model makes of the open cells, with a gradient to all gates: closed tokens are taken out again."""
        features: Features = encoder(image, mask.gate)
        if encoder.spec.hidden != "drop" or features.tokens is None:
            return features
        index, even = places(mask.visible.flatten(1))
        tokens = take_cells(features.tokens, index).masked_fill((index < 0)[..., None], 0)
        return Features(features.pooled, features.maps, tokens, index, even, features.prefix)
