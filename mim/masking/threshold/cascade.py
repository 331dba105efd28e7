"""Maskers one behind the other."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mim.masking.mask import Mask, keep_best_cell


class MaskerCascade(nn.Module):
    """Maskers one behind the other: a cell stays visible where each of them leaves it visible.

    Args:
        maskers: called with the same batch. An image of which together they would leave nothing keeps the cell that
            the last one scores highest, or, if that gives no scores, what the last one shows.
    """

    def __init__(self, maskers: Sequence[nn.Module]) -> None:
        super().__init__()
        if not maskers:
            raise ValueError("a cascade needs at least one masker")
        self.maskers = nn.ModuleList(maskers)

    def forward(self, batch: dict[str, Tensor]) -> Mask:
        """Decides.

        Returns:
            What all agree on; the gate is the product of theirs, where there are any; scores are the last one's.
        """
        masks: list[Mask] = [masker(batch) for masker in self.maskers]
        visible = torch.stack([mask.visible for mask in masks]).all(dim=0)
        gates = [mask.gate for mask in masks if mask.gate is not None]
        gate = None
        for one in gates:
            gate = one if gate is None else gate * one
        rescued = ~visible.flatten(1).any(dim=1)
        last = masks[-1]
        if last.scores is not None:
            visible = keep_best_cell(visible, last.scores.masked_fill(~last.visible, -torch.inf))
        else:
            visible = torch.where(rescued[:, None, None], last.visible, visible)
        if gate is not None:
            gate = torch.where(rescued[:, None, None], visible.to(gate.dtype), gate * visible)
        return Mask(visible=visible, gate=gate, scores=last.scores, rescued=rescued)
