"""What stands in the pixels of hidden cells, where a network that knows nothing of masks must be shown something."""

import math

import torch
from torch import Tensor

FILLS = ("grey", "black", "mean", "blur")
SHARE_FLOOR = 1e-6  # of visible pixels, where none is
FAR = 1e-4  # share of a blur's weight below which it gives way to the mean: nothing visible is near


def fill_hidden(image: Tensor, shown: Tensor, fill: str, black: float, cell: int) -> Tensor:
    """Puts something else in the place of hidden pixels. It is made of visible ones alone.

    Args:
        image: (B, C, H, W), normalised.
        shown: (B, 1, H, W) from 0 = hidden to 1 = visible; in between the two are blended. The image is finite where
            it is 0.
        fill: `grey`, the mean that was subtracted in normalising; `black`; `mean`, that of the visible pixels of each
            image and channel; `blur`, a Gaussian blur of the visible pixels (Knutsson and Westin, Normalized and
            Differential Convolution, CVPR 1993), with a deviation of one cell. Far from all that is visible the blur
            passes into the mean; where nothing is visible both are grey.
        black: what normalising makes of a black pixel.
        cell: side of a cell in pixels.

    Returns:
        (B, C, H, W); visible pixels are as they were.
    """
    if fill == "grey":
        return image * shown
    with torch.autocast(image.device.type, enabled=False):
        if fill == "black":
            stand_in = torch.full_like(image[:1, :1, :1, :1], black)
        elif fill == "mean":
            stand_in = _mean(image.float(), shown.float())
        else:
            stand_in = _blur(image.float(), shown.float(), cell)
        return image * shown + (1 - shown) * stand_in.to(image.dtype)


def _mean(image: Tensor, shown: Tensor) -> Tensor:
    """Mean of what is shown: (B, C, 1, 1)."""
    share = shown.mean((2, 3), keepdim=True).clamp(min=SHARE_FLOOR)
    return (image * shown).mean((2, 3), keepdim=True) / share


def _blur(image: Tensor, shown: Tensor, deviation: float) -> Tensor:
    """Gaussian mean of what is shown around each pixel: (B, C, H, W)."""
    down, across = (_gaussian(side, deviation, image.device) for side in image.shape[-2:])

    def spread(pixels: Tensor) -> Tensor:  # two matrices reach as far as the image does, whatever the deviation
        return down @ pixels @ across

    return (spread(image * shown) + FAR * _mean(image, shown)) / (spread(shown) + FAR)


def _gaussian(side: int, deviation: float, device: torch.device) -> Tensor:
    """(side, side) weight of each place for each other; a whole row far from the border adds up to 1."""
    place = torch.arange(side, device=device, dtype=torch.float32)
    weight = torch.exp(-0.5 * ((place[:, None] - place[None]) / deviation).square())
    return weight / (deviation * math.sqrt(2 * math.pi))
