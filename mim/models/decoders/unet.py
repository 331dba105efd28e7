"""SparK's decoder."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mim.errors import MimError
from mim.models.encoder import Encoder
from mim.models.features import Features, at_resolution
from mim.models.prediction import Prediction
from mim.models.targets.cells import patchify

NARROWEST = 16  # channels of the finest levels


class UNetDecoder(nn.Module):
    """SparK's decoder: a light U-Net over the encoder's pyramid (Tian et al., 2023, section 3.3).

    At hidden positions each level of the encoder has a mask token of its own. From the coarsest level up, what comes
    from below is enlarged, convolved and added to the next one; channels halve on the way. Pixels are predicted at full
    resolution. Other numbers have no place within a cell: each of them is a linear map of all of the cell's positions
    at the finest level of the encoder.

    Args:
        encoder: whose maps are decoded.
        size: numbers to predict for a cell.
        width: channels at the coarsest level.
        depth: 3 x 3 convolutions a level.
        of_pixels: whether these numbers are laid out like the pixels of a cell; None = where they are as many.

    Raises:
        MimError: the encoder's levels cannot be brought to full resolution by doubling.
    """

    def __init__(self, encoder: Encoder, size: int, width: int, depth: int, of_pixels: bool | None = None) -> None:
        super().__init__()
        self.cell = encoder.patch_size
        strides = [int(entry["reduction"]) for entry in encoder.backbone.feature_info]  # finest first
        if strides[0] & (strides[0] - 1):
            raise MimError(
                f"decoder.kind=unet: the finest level of {encoder.spec.name} has stride {strides[0]}, not a power of 2"
            )
        as_many = size == self.cell**2 * encoder.spec.in_chans
        self.of_pixels = as_many if of_pixels is None else of_pixels and as_many
        doublings = strides[0].bit_length() - 1 if self.of_pixels else 0
        widths = [max(NARROWEST, width >> level) for level in range(len(strides) + doublings)]  # coarsest first
        entrances = list(zip(encoder.map_channels[::-1], widths, strict=False))
        self.laterals = nn.ModuleList(nn.Conv2d(channels, own, 1) for channels, own in entrances)
        self.mask_tokens = nn.ParameterList(nn.init.normal_(torch.empty(own, 1, 1), std=0.02) for _, own in entrances)
        self.levels = nn.ModuleList(_convolutions(below, own, depth) for below, own in pairwise(widths))
        side = 1 if self.of_pixels else max(self.cell // strides[0], 1)  # what is predicted from, in positions
        self.predict = nn.Conv2d(widths[-1], encoder.spec.in_chans if self.of_pixels else size, side, side)

    def forward(self, features: Features, visible: Tensor) -> Prediction:
        """Predicts every cell, hidden or not."""
        entrances = [self._entrance(level, features, visible) for level in range(len(self.laterals))]
        x = entrances[0]
        for level, convolutions in enumerate(self.levels, start=1):
            if level < len(entrances):
                x = convolutions(F.interpolate(x, size=entrances[level].shape[-2:])) + entrances[level]
            else:
                x = convolutions(F.interpolate(x, scale_factor=2))
        predicted = self.predict(x)
        if self.of_pixels:
            return Prediction(patchify(predicted, self.cell))
        if predicted.shape[-2:] != visible.shape[1:]:  # the finest level is coarser than a cell
            predicted = F.interpolate(predicted, size=visible.shape[1:])
        return Prediction(predicted.flatten(2).transpose(1, 2))

    def _entrance(self, level: int, features: Features, visible: Tensor) -> Tensor:
        """A level of the encoder, counted from the coarsest, in the decoder's width: (B, C, h, w)."""
        x = self.laterals[level](features.maps[-1 - level])
        shown = at_resolution(visible.float(), (x.shape[-2], x.shape[-1])) > 0
        return torch.where(shown, x, self.mask_tokens[level].to(x.dtype))


def _convolutions(before: int, after: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [
            nn.Conv2d(before if index == 0 else after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU6(inplace=True),
        ]
    return nn.Sequential(*layers)
