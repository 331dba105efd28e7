"""Rectangles of hidden cells, or one of visible cells."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mim.masking.patterns.pattern import Wanted

ATTEMPTS = 10


@dataclass(frozen=True)
class Blocks:
    """Hides rectangles until the count is reached; they may overlap.

    Of the last rectangle only so many cells are hidden as are still wanted, row by row from its top or its bottom, so
    that what is left of it is in one piece and the count is exact.

    Attributes:
        scale: share of the grid that a rectangle covers (min, max), drawn uniformly; the largest is no larger than what
            is still wanted.
        aspect: height to width in cells (min, max), drawn uniformly in the logarithm.
        smallest: cells that a rectangle covers at least, before it is rounded and fitted to the grid.
    """

    scale: tuple[float, float]
    aspect: tuple[float, float]
    smallest: int = 1

    def __call__(self, wanted: Wanted) -> Tensor:
        """Draws a mask."""
        visible = np.ones(wanted.grid, dtype=bool)
        left = wanted.hidden
        while left:
            block = self._draw(visible, left, wanted.generator)
            new = np.flatnonzero(visible[block])  # row by row
            if wanted.generator.randint(2):
                new = new[::-1]
            # a view: what is written to the block is written to the mask
            visible[block].flat[new[:left]] = False
            left -= min(left, len(new))
        return torch.from_numpy(visible)

    def _draw(self, visible: NDArray[np.bool_], wanted: int, generator: np.random.RandomState) -> tuple[slice, slice]:
        """A rectangle that covers at least one visible cell."""
        rows, columns = visible.shape
        low = max(self.scale[0] * visible.size, self.smallest)
        area = generator.uniform(low, max(low, min(self.scale[1] * visible.size, wanted)))
        aspect = math.exp(generator.uniform(math.log(self.aspect[0]), math.log(self.aspect[1])))
        height = min(max(round(math.sqrt(area * aspect)), 1), rows)
        width = min(max(round(math.sqrt(area / aspect)), 1), columns)
        for _ in range(ATTEMPTS):
            top, left = generator.randint(rows - height + 1), generator.randint(columns - width + 1)
            block = slice(top, top + height), slice(left, left + width)
            if visible[block].any():
                return block
        # where little is left to hide, chance does not find it: take a visible cell, and a rectangle around it
        row, column = divmod(int(generator.choice(np.flatnonzero(visible))), columns)
        top = min(max(row - generator.randint(height), 0), rows - height)
        left = min(max(column - generator.randint(width), 0), columns - width)
        return slice(top, top + height), slice(left, left + width)


# Bao et al., BEiT, ICLR 2022, algorithm 1: at least 16 patches, aspect 0.3 to 1/0.3; its largest block is all that is
# still wanted, 0.4 of the grid at the start.
BLOCK_WISE = Blocks(scale=(0.0, 0.4), aspect=(0.3, 1 / 0.3), smallest=16)
# Assran et al., I-JEPA, CVPR 2023, section 3: targets of scale 0.15 to 0.2 and aspect 0.75 to 1.5.
MULTI_BLOCK = Blocks(scale=(0.15, 0.2), aspect=(0.75, 1.5))


@dataclass(frozen=True)
class InverseBlock:
    """Shows one window and hides the rest (the block-inverse mask of Baevski et al., data2vec 2.0, ICML 2023).

    The window is the smallest rectangle of the height drawn that holds enough cells; what it holds too many is hidden
    again from one end of its first or last column, so that the count is exact.

    Attributes:
        aspect: height to width of the window in cells (min, max), drawn uniformly in the logarithm.
    """

    aspect: tuple[float, float] = (0.5, 2.0)

    def __call__(self, wanted: Wanted) -> Tensor:
        """Draws a mask."""
        (rows, columns), generator = wanted.grid, wanted.generator
        shown = wanted.cells - wanted.hidden
        aspect = math.exp(generator.uniform(math.log(self.aspect[0]), math.log(self.aspect[1])))
        lowest = -(-shown // columns)
        height = min(max(round(math.sqrt(shown * aspect)), lowest), rows, shown)
        width = -(-shown // height)
        window = np.ones((height, width), dtype=bool)
        window[height - (height * width - shown) :, -1] = False
        if generator.randint(2):
            window = window[:, ::-1]
        if generator.randint(2):
            window = window[::-1]
        visible = np.zeros(wanted.grid, dtype=bool)
        top, left = generator.randint(rows - height + 1), generator.randint(columns - width + 1)
        visible[top : top + height, left : left + width] = window
        return torch.from_numpy(visible)
