"""The contract that every pattern keeps."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Pattern(Protocol):
    """Decides which cells of a grid are visible."""

    def __call__(
        self,
        grid: tuple[int, int],
        ratio: float,
        generator: np.random.RandomState,
        image: NDArray[np.float32] | None = None,
    ) -> Tensor:
        """Draws a mask.

        Args:
            grid: rows and columns of the patch grid; at least two cells.
            ratio: share of the cells that is hidden, in (0, 1).
            generator: source of all randomness.
            image: (H, W) in [0, 1], a whole number of cells; patterns that look at the film need it.

        Returns:
            (gh, gw) bool, True = visible; at least one cell visible and one hidden.
        """
        ...
