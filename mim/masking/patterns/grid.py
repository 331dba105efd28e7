"""Visible cells at even distances."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mim.masking.patterns.pattern import Wanted


@dataclass(frozen=True)
class Lattice:
    """Every n-th cell of every n-th row; staggered, of these every other one, as the fields of a chessboard.

    Attributes:
        step: n, in cells.
        staggered: whether every other one is left out.
    """

    step: int
    staggered: bool

    @property
    def period(self) -> int:
        """Cells after which it repeats, along rows and columns."""
        return self.step * (2 if self.staggered else 1)

    @property
    def sparseness(self) -> int:
        """Cells of the grid to one of the lattice."""
        return self.step**2 * (2 if self.staggered else 1)

    def lay(self, grid: tuple[int, int]) -> Iterator[NDArray[np.bool_]]:
        """All ways to lay it on a grid: bool (gh, gw) each."""
        rows, columns = np.indices(grid)
        for down in range(self.step):
            for across in range(self.period):
                y, x = rows - down, columns - across
                on = (y % self.step == 0) & (x % self.step == 0)
                yield on & ((x // self.step + y // self.step) % 2 == 0) if self.staggered else on


@dataclass(frozen=True)
class Grid:
    """Spreads the rarer kind of cell, visible or hidden, over a lattice, the widest that holds as many as are wanted.

    At a ratio of 0.75 every second cell of every second row is visible (He et al., Masked Autoencoders, CVPR 2022,
    table 1f), at 0.5 the mask is a chessboard. Where the lattice has more places than are wanted, some are left out at
    random, so that any count is met exactly. The generator also decides where the lattice begins.
    """

    def __call__(self, wanted: Wanted) -> Tensor:
        """Draws a mask."""
        grid, generator, cells, hidden = wanted.grid, wanted.generator, wanted.cells, wanted.hidden
        rarer = min(hidden, cells - hidden)
        lattices = [Lattice(step, staggered) for step in range(1, max(grid) + 1) for staggered in (False, True)]
        for lattice in sorted(lattices, key=lambda lattice: -lattice.sparseness):
            # an estimate that is never too small spares laying lattices that cannot fit
            if -(-grid[0] // lattice.step) * -(-grid[1] // lattice.step) < rarer:
                continue
            fitting = [laid for laid in lattice.lay(grid) if laid.sum() >= rarer]
            if fitting:
                places = np.flatnonzero(fitting[generator.randint(len(fitting))])
                break
        chosen = np.zeros(cells, dtype=bool)
        chosen[generator.permutation(places)[:rarer]] = True
        visible = chosen if rarer == cells - hidden else ~chosen
        return torch.from_numpy(visible.reshape(grid))
