"""Decisions and scores brought from one patch grid to another."""

import logging
from dataclasses import replace

import torch
from torch import Tensor

from mim.masking.mask import Mask, rank_cells

logger = logging.getLogger(__name__)


def fit_scores_to_grid(scores: Tensor, grid: tuple[int, int]) -> Tensor:
    """Averages scores over the area of each cell of another grid.

    Args:
        scores: (B, gh, gw) float.
        grid: rows and columns that are wanted.

    Returns:
        (B, *grid).
    """
    rows, columns = (
        _shares(old, new, scores) for old, new in zip((scores.shape[-2], scores.shape[-1]), grid, strict=True)
    )
    return rows @ scores @ columns.T


def _shares(old: int, new: int, like: Tensor) -> Tensor:
    """(new, old): how much of each new interval each old one covers, where both divide the same line evenly."""
    edges = torch.linspace(0, 1, old + 1, dtype=torch.float64)
    starts, ends = edges[:-1], edges[1:]
    wanted = torch.linspace(0, 1, new + 1, dtype=torch.float64)
    covered = torch.minimum(ends[None], wanted[1:, None]) - torch.maximum(starts[None], wanted[:-1, None])
    return (covered.clamp(min=0) * new).to(like.device, like.dtype)


def fit_mask_to_grid(mask: Mask, grid: tuple[int, int]) -> Mask:
    """Brings a decision to another patch grid; each image keeps the share of cells that it kept.

    The cells with the best scores are kept, scores being averaged over the area of a cell. Whether high ones are good,
    or low ones, is seen from the mask itself. Where scores do not explain the mask, and where there are none, the cells
    are kept of which most was kept.

    Args:
        mask: without gate.
        grid: rows and columns that are wanted.

    Returns:
        A mask of that grid; the same one where it is of that grid already. At least one cell of an image is visible.

    Raises:
        ValueError: it has a gate, which cannot be brought to another grid without changing what it teaches.
    """
    found = (mask.visible.shape[-2], mask.visible.shape[-1])
    if found == tuple(grid):
        return mask
    if mask.gate is not None:
        raise ValueError(
            f"a gate of {found[0]}x{found[1]} cells does not fit an encoder of {grid[0]}x{grid[1]}: a masker trains on "
            "the encoder's own grid; give it the encoder's patch_size and image size"
        )
    share = mask.visible.float()
    kept = fit_scores_to_grid(share, grid)
    scores = None if mask.scores is None else fit_scores_to_grid(mask.scores.float(), grid)
    if mask.scores is not None and scores is not None:
        sign = _direction(mask.visible, mask.scores.float())[:, None, None]
        kept = torch.where(sign == 0, kept, sign * scores)
    cells = grid[0] * grid[1]
    counts = (share.mean((1, 2)) * cells).round().clamp(min=1)  # (B,)
    visible = rank_cells(kept) < counts[:, None, None]
    return replace(mask, visible=visible, scores=scores)


def _direction(visible: Tensor, scores: Tensor) -> Tensor:
    """(B,): 1 where the visible cells are those with the highest scores, -1 the lowest, 0 neither."""
    inside, shown = scores.flatten(1), visible.flatten(1)

    def ends(cells: Tensor) -> tuple[Tensor, Tensor]:
        return (
            inside.masked_fill(~cells, torch.inf).amin(dim=1),
            inside.masked_fill(~cells, -torch.inf).amax(dim=1),
        )

    (least_shown, most_shown), (least_hidden, most_hidden) = ends(shown), ends(~shown)
    highest, lowest = least_shown >= most_hidden, most_shown <= least_hidden
    return highest.to(scores.dtype) - (lowest & ~highest).to(scores.dtype)


class GridFit:
    """Brings decisions to the grid of an encoder, and says so once."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, mask: Mask, grid: tuple[int, int]) -> Mask:
        """Gives `fit_mask_to_grid`.

        Raises:
            ValueError: the mask has a gate of another grid.
        """
        fitted = fit_mask_to_grid(mask, grid)
        if fitted is not mask and not self._said:
            self._said = True
            rows, columns = mask.visible.shape[-2:]
            logger.warning(
                "the masker decides for %dx%d cells and the encoder has %dx%d: its decisions are resampled, each image "
                "keeps its share of cells",
                rows, columns, *grid,
            )  # fmt: skip
        return fitted
