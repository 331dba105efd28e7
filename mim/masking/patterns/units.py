"""Cells hidden at random in units coarser than a cell."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mim.masking.patterns.random import hidden_count


@dataclass(frozen=True)
class Units:
    """Hides square units of several cells, each equally likely (Xie et al., SimMIM, CVPR 2022: 32 pixels over 16).

    Units are laid from the top left. Where the grid is no multiple of the unit, those at the right and at the bottom
    are cut off at its edge. The count of cells is exact all the same: of the last unit drawn only so many cells are
    hidden as are still wanted, row by row.

    Attributes:
        size: side of a unit in cells.
    """

    size: int

    def __call__(
        self,
        grid: tuple[int, int],
        ratio: float,
        generator: np.random.RandomState,
        image: NDArray[np.float32] | None = None,
    ) -> Tensor:
        """Draws a mask; the image is not looked at."""
        rows, columns = np.indices(grid)
        across = -(-grid[1] // self.size)
        unit = (rows // self.size * across + columns // self.size).ravel()  # of each cell
        turn = generator.permutation(unit.max() + 1)[unit]
        visible = np.ones(unit.size, dtype=bool)
        visible[np.argsort(turn, kind="stable")[: hidden_count(unit.size, ratio)]] = False
        return torch.from_numpy(visible.reshape(grid))
