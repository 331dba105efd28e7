"""What a masker answers: which cells of the patch grid the encoder may look at."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mask:
    """One decision for every cell of the patch grid, row-major over the image.

    Attributes:
        visible: (B, gh, gw) bool, True = the encoder may look at the cell.
        gate: (B, gh, gw) float in [0, 1] while a masker trains, else None. Its forward values agree with `visible`;
            its gradient reaches the masker, for which the encoder must compute hidden cells as well.
        scores: (B, gh, gw) float that the decision was made from, in the masker's own units.
        rescued: (B,) bool, images of which nothing qualified and that keep their best cell all the same; None where
            that cannot be.
    """

    visible: Tensor
    gate: Tensor | None = None
    scores: Tensor | None = None
    rescued: Tensor | None = None


Masker = Callable[[dict[str, Tensor]], Mask]


def rank_cells(scores: Tensor) -> Tensor:
    """Place of each cell of an image by its score, 0 = the highest; the earlier of equal ones first.

    Args:
        scores: (B, gh, gw) float.

    Returns:
        (B, gh, gw) integers.
    """
    order = scores.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view_as(scores)


def show_best_cells(scores: Tensor, keep: float) -> Tensor:
    """Shows the same share of every image, the cells with the highest scores; of equal scores the earlier on the grid.

    Args:
        scores: (B, gh, gw) float.
        keep: share of the cells, in (0, 1]; rounded to a whole number of cells, at least one.

    Returns:
        (B, gh, gw) bool.
    """
    count = max(round(keep * scores[0].numel()), 1)
    return show_counted_cells(scores, torch.full((len(scores),), count, device=scores.device))


def show_counted_cells(scores: Tensor, counts: Tensor) -> Tensor:
    """Shows so many cells of each image, those with the highest scores; of equal scores the earlier on the grid.

    Args:
        scores: (B, gh, gw) float.
        counts: (B,) cells.

    Returns:
        (B, gh, gw) bool.
    """
    return (rank_cells(scores).flatten(1) < counts[:, None]).view_as(scores)


def keep_best_cell(visible: Tensor, scores: Tensor) -> Tensor:
    """Shows the cell with the highest score wherever an image would have nothing visible at all.

    Args:
        visible: (B, gh, gw) bool.
        scores: (B, gh, gw) float, higher = rather kept.

    Returns:
        (B, gh, gw) bool with at least one cell visible in every image.
    """
    best = torch.zeros_like(visible.flatten(1)).scatter_(1, scores.flatten(1).argmax(dim=1, keepdim=True), True)
    nothing_visible = ~visible.flatten(1).any(dim=1, keepdim=True)  # (B, 1)
    return (visible.flatten(1) | (nothing_visible & best)).view_as(visible)
