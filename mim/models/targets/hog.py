"""Histograms of oriented gradients."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mim.errors import MimError
from mim.models.encoder import Encoder
from mim.models.features import take_cells
from mim.models.targets.cells import patchify
from mim.models.targets.target import Target

BINS = 9
SQUARE = 8  # side in pixels of what one histogram is of
FAINTEST = 1e-3  # norm below which a histogram is not blown up to 1: rounding errors in air are no edges


class HogTarget(Target):
    """Histograms of oriented gradients, as Wei et al. (MaskFeat, CVPR 2022) predict them.

    One histogram a square of 8 by 8 pixels and channel; 9 bins of 20 degrees over unsigned orientations, that is, an
    edge from dark to bright counts like one from bright to dark; each pixel puts the magnitude of its Sobel gradient
    (image mirrored at its borders) into one bin; each histogram is divided by its L2 norm.

    Args:
        encoder: whose cells are described.

    Raises:
        MimError: a cell is not a whole number of squares.
    """

    name = "hog"

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.patch_size = encoder.patch_size
        if self.patch_size % SQUARE:
            raise MimError(
                f"target.hog: histograms are of {SQUARE} by {SQUARE} pixels, so the patch size must be a multiple of "
                f"{SQUARE}, not {self.patch_size}; choose another encoder or encoder.patch_size"
            )
        self.channels = encoder.spec.in_chans
        self.size = (self.patch_size // SQUARE) ** 2 * self.channels * BINS

    def forward(self, image: Tensor, index: Tensor | None = None) -> Tensor:
        """Gives (B, M, P): squares row-major in a cell, then channels, then bins from 0 to 180 degrees."""
        with torch.autocast(image.device.type, enabled=False):
            gradient = torch.stack(sobel(image.float()), dim=2).flatten(1, 2)  # (B, C * 2, H, W)
            cells = take_cells(patchify(gradient, self.patch_size), index)
            return self._histograms(cells)

    def _histograms(self, cells: Tensor) -> Tensor:
        """(B, M, patch_size ** 2 * C * 2) gradients -> (B, M, P)."""
        side = self.patch_size // SQUARE
        split = cells.reshape(*cells.shape[:2], side, SQUARE, side, SQUARE, self.channels, 2)
        across, down = split.permute(7, 0, 1, 2, 4, 6, 3, 5).flatten(6)  # (B, M, side, side, C, 64) each
        backwards = (down < 0) | ((down == 0) & (across < 0))
        turned = torch.where(backwards, -1.0, 1.0)  # an exact fold: half a turn less rounding would be another bin
        bins = torch.floor(torch.atan2(down * turned, across * turned) * (BINS / math.pi)).clamp(max=BINS - 1)
        magnitude = torch.hypot(across, down)
        # a loop of sums, not a scatter: on a GPU that would add in another order each time
        counts = [torch.where(bins == number, magnitude, 0).sum(dim=-1) for number in range(BINS)]
        return F.normalize(torch.stack(counts, dim=-1), dim=-1, eps=FAINTEST).flatten(2)


def sobel(image: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes of an image (B, C, H, W), mirrored at its borders, across and down; of a ramp it is the slope itself.

    Differences are taken before the sums, so that what is equal on both sides gives 0 and not a rounding error.
    """
    padded = F.pad(image, (1, 1, 1, 1), mode="reflect")
    across = padded[..., 2:] - padded[..., :-2]
    down = padded[..., 2:, :] - padded[..., :-2, :]
    return (
        (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 8,
        (down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]) / 8,
    )
