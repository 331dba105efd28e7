"""A masker that keeps the cells whose score reaches a threshold."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mim.masking.mask import Mask, keep_best_cell

Score = Literal["intensity", "gradient", "variance"]


class ThresholdMasker(nn.Module):
    """Keeps the cells whose score is at or above a threshold (or at or below it); nothing is learned.

    An image in which no cell qualifies keeps its best one, for an encoder cannot look at nothing.

    Args:
        threshold: compared with the score of a cell; `values >= threshold` are kept.
        score: `intensity`, the mean of the cell's pixels; `gradient`, the mean length of the pixel gradient by
            central differences (per pixel); `variance`, the variance of the cell's pixels.
        keep: `above` or `below` the threshold; a score equal to it is kept either way.
        patch_size: side of one cell in pixels.
    """

    def __init__(
        self,
        threshold: float,
        score: Score = "intensity",
        keep: Literal["above", "below"] = "above",
        patch_size: int = 16,
    ) -> None:
        super().__init__()
        if score not in ("intensity", "gradient", "variance"):
            raise ValueError(f"score must be intensity, gradient or variance, not {score!r}")
        if keep not in ("above", "below"):
            raise ValueError(f"keep must be above or below, not {keep!r}")
        self.threshold = threshold
        self.score = score
        self.keep = keep
        self.patch_size = patch_size

    def forward(self, batch: dict[str, Tensor]) -> Mask:
        """Decides from `batch["image"]`, (B, C, H, W) with pixels in [0, 1].

        Returns:
            A mask without gate; its scores are those compared with the threshold.
        """
        scores = self._score(batch["image"].mean(dim=1, keepdim=True))  # (B, gh, gw)
        above = self.keep == "above"
        visible = scores >= self.threshold if above else scores <= self.threshold
        return Mask(visible=keep_best_cell(visible, scores if above else -scores), scores=scores)

    def _score(self, image: Tensor) -> Tensor:
        def cell_mean(pixels: Tensor) -> Tensor:
            return F.avg_pool2d(pixels, self.patch_size).squeeze(1)  # (B, 1, H, W) -> (B, gh, gw)

        if self.score == "intensity":
            return cell_mean(image)
        if self.score == "variance":
            return (cell_mean(image.square()) - cell_mean(image).square()).clamp(min=0)
        padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
        down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
        across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
        return cell_mean(torch.sqrt(down.square() + across.square()))
