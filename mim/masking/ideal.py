"""Masks that are known to be right: the cells that hold what is sought."""

import torch
import torch.nn.functional as F
from torch import Tensor

HEAVIEST = 1000.0  # weight of a cell with a lesion, where the batch holds hardly any


def lesion_cells(lesion: Tensor, grid: tuple[int, int]) -> Tensor:
    """Finds the cells that hold any pixel of a lesion.

    Args:
        lesion: (B, 1, H, W) bool.
        grid: rows and columns; H and W are multiples of them.

    Returns:
        (B, gh, gw) bool.

    Raises:
        ValueError: the pixels do not divide into the grid.
    """
    height, width = lesion.shape[-2:]
    if height % grid[0] or width % grid[1]:
        raise ValueError(f"lesions of {(height, width)} pixels do not divide into a grid of {grid}")
    return F.max_pool2d(lesion.float(), (height // grid[0], width // grid[1]))[:, 0] > 0


def lesion_loss(scores: Tensor, lesion: Tensor) -> Tensor:
    """Cross entropy between a masker's odds and the cells that hold a lesion, both kinds of cells weighing the same.

    Films without a lesion are left out: what a mask of a healthy film should show, nobody has said.

    Args:
        scores: (B, gh, gw) log-odds of being visible.
        lesion: (B, 1, H, W) bool, pixels of lesions.

    Returns:
        Scalar; 0 where no film has a lesion.
    """
    wanted = lesion_cells(lesion, (scores.shape[1], scores.shape[2]))
    counted = wanted.flatten(1).any(dim=1)[:, None, None].expand_as(scores).float()
    right = wanted.float()
    found = right.sum()
    heavier = ((counted.sum() - found) / found.clamp(min=1)).clamp(max=HEAVIEST)
    losses = F.binary_cross_entropy_with_logits(scores, right, counted, reduction="none", pos_weight=heavier)
    weight = counted * torch.where(wanted, heavier, 1)
    return losses.sum() / weight.sum().clamp(min=1)
