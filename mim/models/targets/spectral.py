"""The high frequencies of an image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mim.models.encoder import Encoder
from mim.models.features import take_cells
from mim.models.targets.cells import EPSILON, patchify
from mim.models.targets.target import Target

CELLS_A_DEVIATION = 6  # half of the amplitude then passes at 14 pixels a period for cells of 16
TRUNCATE = 4  # deviations at which the Gaussian ends


class SpectralTarget(Target):
    """What a Gaussian blur takes out of an image: edges and texture, without brightness and shading.

    In the manner of Xie et al. (Masked Frequency Modeling, ICLR 2023), who hide frequencies and rebuild them: here
    cells are hidden, as for every target, and their high frequencies alone are to be found. The blur has a deviation
    of patch_size / 6 pixels, and the image is mirrored at its borders. The result is divided by the deviation of the
    image's own pixels, so that neither exposure nor contrast of a film counts.

    Args:
        encoder: whose cells are described.
    """

    name = "spectral"
    kernel: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.patch_size = encoder.patch_size
        self.size = encoder.patch_size**2 * encoder.spec.in_chans
        self.register_buffer("kernel", gaussian(encoder.patch_size / CELLS_A_DEVIATION), persistent=False)

    def forward(self, image: Tensor, index: Tensor | None = None) -> Tensor:
        """Gives (B, M, patch_size ** 2 * C), laid out like pixels."""
        with torch.autocast(image.device.type, enabled=False):
            image = image.float()
            contrast = torch.sqrt(image.var(dim=(1, 2, 3), keepdim=True, unbiased=False) + EPSILON)
            high = (image - self._blur(image)) / contrast
            return take_cells(patchify(high, self.patch_size), index)

    def _blur(self, image: Tensor) -> Tensor:
        reach = len(self.kernel) // 2
        planes = F.pad(image, (reach, reach, reach, reach), mode="reflect").flatten(0, 1)[:, None]
        blurred = F.conv2d(F.conv2d(planes, self.kernel[None, None, None]), self.kernel[None, None, :, None])
        return blurred.view_as(image)


def gaussian(deviation: float) -> Tensor:
    """Samples a Gaussian at whole pixels, up to `TRUNCATE` deviations, with sum 1: (2 * reach + 1,)."""
    reach = math.ceil(TRUNCATE * deviation)
    places = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-(places**2) / (2 * deviation**2))
    return (weights / weights.sum()).float()
