"""What a decoder gives back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mim.models.features import scatter_tokens, take_cells


@dataclass(frozen=True)
class Prediction:
    """What a decoder makes of some cells.

    Attributes:
        values: (B, M, P), P numbers a cell.
        index: (B, M) places on the row-major patch grid, -1 for padding; None = all cells in their order, M = gh * gw.
    """

    values: Tensor
    index: Tensor | None = None

    def take(self, cells: Tensor) -> Tensor:
        """Takes from (B, gh * gw, Q) the cells that were predicted: (B, M, Q); anything where there is padding."""
        return take_cells(cells, self.index)

    def counted(self, visible: Tensor) -> Tensor:
        """Says which predictions count for the loss: those of hidden cells.

        Args:
            visible: (B, gh, gw) bool.

        Returns:
            (B, M) bool.
        """
        hidden = self.take((~visible).flatten(1)[..., None])[..., 0]
        return hidden if self.index is None else hidden & (self.index >= 0)

    def lay(self, cells: int) -> Tensor:
        """Lays the predictions out over all cells, zero where there is none: (B, cells, P)."""
        if self.index is None:
            return self.values
        return scatter_tokens(
            self.values, self.index, self.values.new_zeros(len(self.values), cells, self.values.shape[-1])
        )

    def is_laid(self, cells: int) -> Tensor:
        """Says which of all cells were predicted: (B, cells) bool."""
        if self.index is None:
            return torch.ones(self.values.shape[:2], dtype=torch.bool, device=self.values.device)
        ones = torch.ones(*self.index.shape, 1, device=self.values.device)
        return scatter_tokens(ones, self.index, ones.new_zeros(len(ones), cells, 1))[..., 0] > 0
