"""Fixed position embeddings."""

import torch
from torch import Tensor


def sine_cosine_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Two-dimensional sine-cosine positions: half of the channels for the row, half for the column.

    Vaswani et al., Attention Is All You Need, section 3.5, for each axis, as in He et al., Masked Autoencoders, 2022.

    Args:
        grid: rows and columns.
        width: channels, a multiple of 4.

    Returns:
        (rows * columns, width), row-major.

    Raises:
        ValueError: if the width is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"sine-cosine positions need a width that is a multiple of 4, not {width}")
    frequency = 1.0 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    rows, columns = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float64), torch.arange(grid[1], dtype=torch.float64), indexing="ij"
    )
    # the column's half comes first, as in the published checkpoints
    angles = [axis.reshape(-1, 1) * frequency for axis in (columns, rows)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).float()
