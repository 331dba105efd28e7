"""Images to cells and back."""

import torch
from torch import Tensor

EPSILON = 1e-6  # added to the variance, as in He et al., Masked Autoencoders, 2022


def patchify(image: Tensor, patch_size: int) -> Tensor:
    """Cuts (B, C, H, W) into cells: (B, gh * gw, patch_size * patch_size * C), pixels row-major, channels last."""
    batch, channels, height, width = image.shape
    rows, columns = height // patch_size, width // patch_size
    cells = image.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)


def unpatchify(cells: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """Undoes `patchify`: (B, gh * gw, patch_size * patch_size * C) -> (B, C, H, W)."""
    batch = cells.shape[0]
    pixels = cells.reshape(batch, grid[0], grid[1], patch_size, patch_size, -1).permute(0, 5, 1, 3, 2, 4)
    return pixels.reshape(batch, -1, grid[0] * patch_size, grid[1] * patch_size)


def normalize_cells(cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gives every cell mean 0 and deviation 1 (unbiased variance), as He et al. (2022) do for their best results.

    Args:
        cells: (B, N, P).

    Returns:
        The normalised cells, their means (B, N, 1) and their deviations (B, N, 1).
    """
    mean = cells.mean(dim=-1, keepdim=True)
    deviation = torch.sqrt(cells.var(dim=-1, keepdim=True) + EPSILON)
    return (cells - mean) / deviation, mean, deviation
