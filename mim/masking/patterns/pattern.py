"""The contract that every pattern keeps."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mim.masking.patterns.random import hidden_count


@dataclass(frozen=True)
class Wanted:
    """The mask that is asked for.

    Attributes:
        grid: rows and columns of the patch grid; at least two cells.
        ratio: share of the cells that is hidden, in (0, 1).
        generator: source of all randomness.
        film: (H, W) in [0, 1], a whole number of cells, for patterns that look at it.
    """

    grid: tuple[int, int]
    ratio: float
    generator: np.random.RandomState
    film: NDArray[np.float32] | None = None

    @property
    def cells(self) -> int:
        """Number of cells of the grid."""
        return self.grid[0] * self.grid[1]

    @property
    def hidden(self) -> int:
        """How many of them to hide."""
        return hidden_count(self.cells, self.ratio)

    @property
    def image(self) -> NDArray[np.float32]:
        """The film.

        Raises:
            ValueError: none was given.
        """
        if self.film is None:
            raise ValueError("this pattern looks at the film, and was given none")
        return self.film


class Pattern(Protocol):
    """Decides which cells of a grid are visible."""

    def __call__(self, wanted: Wanted) -> Tensor:
        """Draws a mask.

        Returns:
            (gh, gw) bool, True = visible; at least one cell visible and one hidden.
        """
        ...
