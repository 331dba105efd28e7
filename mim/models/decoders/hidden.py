"""Which hidden cells are decoded."""

import math

import torch
from torch import Tensor

from mim.models.features import places


def hidden_places(visible: Tensor, seen: int | None, share: float = 1.0) -> tuple[Tensor, bool]:
    """Finds the hidden cells that are decoded.

    Args:
        visible: (B, gh, gw) bool.
        seen: how many cells every image shows, or None where their numbers differ or are not known.
        share: of each image's hidden cells, rounded up, that is drawn by torch's generator; 1 = all, in grid order.

    Returns:
        (B, M) places on the row-major grid, -1 for padding; and whether there is no padding. With `seen`, shapes are
        static and nothing waits for the device.
    """
    hidden = ~visible.flatten(1)
    if share == 1:
        return places(hidden, None if seen is None else hidden.shape[1] - seen)
    score = torch.rand(hidden.shape, device=hidden.device).masked_fill(~hidden, 2)  # visible cells come last
    if seen is not None:
        return score.topk(math.ceil(share * (hidden.shape[1] - seen)), dim=1, largest=False).indices, True
    wanted = (share * hidden.sum(dim=1, keepdim=True)).ceil()
    return places(score.argsort(dim=1).argsort(dim=1) < wanted)
