"""Cells hidden at random in units coarser than a cell."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mim.masking.patterns.pattern import Wanted


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

    def __call__(self, wanted: Wanted) -> Tensor:
        """Draws a mask."""
        rows, columns = np.indices(wanted.grid)
        across = -(-wanted.grid[1] // self.size)
        unit = (rows // self.size * across + columns // self.size).ravel()  # of each cell
        turn = wanted.generator.permutation(unit.max() + 1)[unit]
        visible = np.ones(unit.size, dtype=bool)
        visible[np.argsort(turn, kind="stable")[: wanted.hidden]] = False
        return torch.from_numpy(visible.reshape(wanted.grid))
