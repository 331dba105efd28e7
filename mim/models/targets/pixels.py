"""The pixels of a cell."""

from torch import Tensor

from mim.errors import MimError
from mim.models.encoder import Encoder
from mim.models.features import take_cells
from mim.models.targets.cells import normalize_cells, patchify
from mim.models.targets.target import Target


class PixelTarget(Target):
    """The pixels of each cell, by default normalised by the cell's own mean and deviation (He et al., MAE, CVPR 2022).

    Args:
        encoder: whose cells are rebuilt.
        normalize: whether each cell is given mean 0 and deviation 1.

    Raises:
        MimError: a cell is one number, which has no deviation.
    """

    name = "pixels"

    def __init__(self, encoder: Encoder, normalize: bool = True) -> None:
        super().__init__()
        self.patch_size = encoder.patch_size
        self.size = encoder.patch_size**2 * encoder.spec.in_chans
        self.normalize = normalize
        if normalize and self.size < 2:
            raise MimError(
                "target.normalize_pixels: a cell of one pixel has no deviation; give target.normalize_pixels=false, or "
                "a larger encoder.patch_size"
            )

    def forward(self, image: Tensor, index: Tensor | None = None) -> Tensor:
        """Gives (B, M, patch_size ** 2 * C)."""
        cells = take_cells(patchify(image, self.patch_size), index)
        return normalize_cells(cells)[0] if self.normalize else cells

    def to_cells(self, predicted: Tensor, image: Tensor) -> Tensor:
        """Gives pixels. Normalised cells are given their true mean and deviation: the shape is shown, not guessed."""
        if not self.normalize:
            return predicted
        _, mean, deviation = normalize_cells(patchify(image, self.patch_size))
        return predicted * deviation + mean
