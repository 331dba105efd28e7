"""What a cell, or a pixel, scores in an image by rules that nobody has to train."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Score = Literal["intensity", "gradient", "variance"]
SCORES: tuple[str, ...] = get_args(Score)


def score_cells(image: Tensor, score: Score, patch_size: int) -> Tensor:
    """Scores the cells of the patch grid.

    Args:
        image: (B, C, H, W), pixels in [0, 1]; channels are averaged.
        score: `intensity`, the mean of the cell's pixels; `gradient`, the mean length of their gradient by central
            differences (per pixel); `variance`, the variance of the cell's pixels.
        patch_size: side of a cell in pixels; both sides of the image are multiples of it.

    Returns:
        (B, gh, gw), float.
    """
    grey = image.mean(dim=1, keepdim=True)  # (B, 1, H, W)

    def cell_mean(pixels: Tensor) -> Tensor:
        return F.avg_pool2d(pixels, patch_size).squeeze(1)  # (B, gh, gw)

    if score == "intensity":
        return cell_mean(grey)
    if score == "variance":
        return (cell_mean(grey.square()) - cell_mean(grey).square()).clamp(min=0)
    return cell_mean(_gradient(grey))


def score_pixels(image: Tensor, score: Score, window: int) -> Tensor:
    """Scores every pixel.

    Args:
        image: (B, C, H, W), pixels in [0, 1]; channels are averaged.
        score: `intensity`, the pixel itself; `gradient`, the length of its gradient by central differences;
            `variance`, the variance of the pixels in a window around it.
        window: side of that window in pixels, odd; at the border the part of it that lies in the image counts.

    Returns:
        (B, H, W), float.
    """
    grey = image.mean(dim=1, keepdim=True)
    if score == "intensity":
        return grey.squeeze(1)
    if score == "gradient":
        return _gradient(grey).squeeze(1)

    def mean(pixels: Tensor) -> Tensor:
        return F.avg_pool2d(pixels, window, stride=1, padding=window // 2, count_include_pad=False)

    return (mean(grey.square()) - mean(grey).square()).clamp(min=0).squeeze(1)


def _gradient(grey: Tensor) -> Tensor:
    """Length of the gradient by central differences, borders repeated: (B, 1, H, W), of pixel values a pixel."""
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    return torch.sqrt(down.square() + across.square())
