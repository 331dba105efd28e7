"""Scores of cells that a frozen model gives: how badly it rebuilds them, or how much it attends to them."""

import copy
from abc import ABC, abstractmethod
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mim.masking.grids import fit_scores_to_grid
from mim.models import Encoder, MaskedImageModel
from mim.models.attention import attention_to_cells, without_attention


class FrozenSource(nn.Module, ABC):
    """Scores the cells of a batch of images by a model that is never trained with what uses the scores.

    It is copied, so that neither training touches the other, and its weights travel with those of the task.

    Args:
        encoder: of the model; images are brought to its size.
        grid: rows and columns of the scores that are wanted; None = those of the encoder.
    """

    def __init__(self, encoder: Encoder, grid: tuple[int, int] | None) -> None:
        super().__init__()
        self.image_size = encoder.image_size
        self.own_grid = encoder.grid()
        self.grid = grid or self.own_grid

    @abstractmethod
    def score(self, image: Tensor) -> Tensor:
        """Scores whole images of the model's size, (B, C, H, W) with pixels in [0, 1]: (B, gh * gw)."""

    @torch.no_grad()
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores `batch["image"]`, (B, C, H, W) with pixels in [0, 1], of any size.

        Returns:
            (B, *grid) float32, finite.
        """
        image = torch.nan_to_num(batch["image"])  # one such pixel would be in every cell that is rebuilt beside it
        if tuple(image.shape[-2:]) != self.image_size:
            image = F.interpolate(image, self.image_size, mode="bilinear", antialias=True)
        scores = self.score(image).float().view(len(image), *self.own_grid)
        return scores if self.grid == self.own_grid else fit_scores_to_grid(scores, self.grid)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation whatever is asked."""
        return super().train(False)

    def freeze(self) -> None:
        """Takes the model out of training; for the end of `__init__`."""
        self.requires_grad_(False)
        self.eval()


class ReconstructionError(FrozenSource):
    """Scores a cell by the error of a pretrained model that rebuilds it from other cells.

    The cells are divided at random into groups of equal size, each of which is visible alone in turn (or, where the
    model hides less than half, hidden alone), so that every cell is hidden equally often. The division follows from the
    seed and the grid: the same image has the same scores in any batch. A cell's score is the mean of its errors, as the
    pretraining's loss sums them up over its targets; errors that are not finite are left out.

    Args:
        model: that was pretrained.
        ratio: share of the cells that is hidden at a time, as in its pretraining.
        rounds: divisions into groups; one costs 1 / (1 - ratio) passes of the model, 4 where it hides three quarters.
        seed: of the divisions.
        grid: rows and columns of the scores; None = those of the model.

    Raises:
        ValueError: the ratio is not above 0 and below 1, or there is nothing to hide.
    """

    def __init__(
        self,
        model: MaskedImageModel,
        ratio: float = 0.75,
        rounds: int = 2,
        seed: int = 0,
        grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(model.encoder, grid)
        if not 0 < ratio < 1 or rounds < 1:
            raise ValueError(f"ratio must lie above 0 and below 1 and rounds be at least 1, not {ratio} and {rounds}")
        masks = complementary_masks(self.own_grid, ratio, rounds, seed)
        self.model = copy.deepcopy(model)
        self.register_buffer("masks", masks, persistent=False)  # (M, gh, gw)
        self.freeze()

    masks: Tensor

    def score(self, image: Tensor) -> Tensor:
        """Mean error of each cell over the masks that hide it."""
        total = image.new_zeros(len(image), self.masks[0].numel(), dtype=torch.float32)
        count = torch.zeros_like(total)
        for visible in self.masks:
            batch = {"image": image, "visible": visible.expand(len(image), -1, -1)}
            error, counted = self.model.cell_errors(batch)
            counted = counted & error.isfinite()
            total += torch.where(counted, error, 0)
            count += counted
        return total / count.clamp(min=1)


def complementary_masks(grid: tuple[int, int], ratio: float, rounds: int, seed: int) -> Tensor:
    """Masks that together hide every cell equally often.

    Args:
        grid: rows and columns.
        ratio: share of the cells that is hidden, rounded to (k - 1) / k or 1 / k.
        rounds: how often the cells are divided into k groups.
        seed: of the divisions.

    Returns:
        (rounds * k, rows, columns) bool, True = visible.

    Raises:
        ValueError: there is one cell only.
    """
    cells = grid[0] * grid[1]
    if cells < 2:
        raise ValueError("a grid of one cell has nothing to rebuild it from; the image must be larger")
    groups = min(max(round(1 / min(ratio, 1 - ratio)), 2), cells)
    generator = torch.Generator().manual_seed(seed)
    masks = []
    for _ in range(rounds):
        group = torch.empty(cells, dtype=torch.int64)
        group[torch.randperm(cells, generator=generator)] = torch.arange(cells) % groups
        chosen = group[None] == torch.arange(groups)[:, None]  # (k, cells), each cell once
        masks.append(chosen if ratio >= 0.5 else ~chosen)
    return torch.cat(masks).view(-1, *grid)


class AttentionScore(FrozenSource):
    """Scores a cell by the attention that the class token pays to it, or without one the mean query of the cells.

    Averaged over the heads of the last blocks. 1 is the mean of an image, so that a threshold means the same on any
    grid.

    Args:
        encoder: a plain ViT, trained: the attention of fresh weights means nothing.
        blocks: how many of the last blocks are averaged.
        mean: subtracted from pixels in [0, 1].
        std: what the difference is divided by.
        grid: rows and columns of the scores; None = those of the encoder.

    Raises:
        ValueError: the encoder has no such attention.
    """

    def __init__(
        self,
        encoder: Encoder,
        blocks: int = 1,
        mean: float = 0.0,
        std: float = 1.0,
        grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(encoder, grid)
        if (missing := without_attention(encoder)) is not None:
            raise ValueError(f"{missing}; choose a ViT, or the score reconstruction_error")
        if blocks < 1:
            raise ValueError(f"blocks must be at least 1, not {blocks}")
        self.encoder = copy.deepcopy(encoder)
        self.blocks = blocks
        self.mean = mean
        self.std = std
        self.freeze()

    def score(self, image: Tensor) -> Tensor:
        """Attention of the last blocks, 1 = the image's mean."""
        paid = attention_to_cells(self.encoder, (image - self.mean) / self.std, self.blocks).float()
        paid = torch.nan_to_num(paid)
        return paid / paid.mean(dim=1, keepdim=True).clamp(min=torch.finfo(paid.dtype).tiny)
