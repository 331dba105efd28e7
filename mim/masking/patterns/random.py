"""Cells that are hidden at random, each equally likely."""

import numpy as np
import torch
from torch import Tensor


def hidden_count(cells: int, ratio: float) -> int:
    """How many of `cells` a ratio hides: rounded, but at least one hidden and at least one visible.

    Raises:
        ValueError: if the grid has fewer than two cells or the ratio is outside (0, 1).
    """
    if not 0 < ratio < 1:
        raise ValueError(f"the share of hidden cells must lie between 0 and 1, not {ratio}")
    if cells < 2:
        raise ValueError(f"a grid of {cells} cell cannot have both a hidden and a visible cell")
    return min(max(round(ratio * cells), 1), cells - 1)


def random_visible(grid: tuple[int, int], ratio: float, generator: np.random.RandomState) -> Tensor:
    """Hides an exact number of cells, each equally likely (He et al., Masked Autoencoders, CVPR 2022, section 3).

    Args:
        grid: rows and columns of the patch grid.
        ratio: share of the cells that is hidden.
        generator: source of randomness.

    Returns:
        (gh, gw) bool, True = visible.
    """
    cells = grid[0] * grid[1]
    visible = np.ones(cells, dtype=bool)
    visible[generator.permutation(cells)[: hidden_count(cells, ratio)]] = False
    return torch.from_numpy(visible.reshape(grid))


def random_visible_batch(batch: int, grid: tuple[int, int], keep: Tensor, device: torch.device) -> Tensor:
    """Shows an exact share of the cells of every image, each equally likely, drawn with torch's generator.

    Args:
        batch: number of images.
        grid: rows and columns of the patch grid.
        keep: scalar tensor on the CPU, the share of cells that stays visible.
        device: where the mask is made.

    Returns:
        (B, gh, gw) bool, the same number of visible cells in every image, at least one.
    """
    cells = grid[0] * grid[1]
    kept = min(max(round(float(keep) * cells), 1), cells)
    order = torch.rand(batch, cells, device=device).argsort(dim=1)  # (B, N)
    visible = torch.zeros(batch, cells, dtype=torch.bool, device=device)
    return visible.scatter_(1, order[:, :kept], True).view(batch, *grid)
