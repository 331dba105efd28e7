"""Guides: which cells to hide, asked of the encoder that is being trained."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mim.models.attention import attention_to_cells, observing, without_attention
from mim.models.encoder import Encoder

MOST_COMPARED = 256  # cells of an image; all pairs of more would take more memory than the network


@dataclass(frozen=True)
class Choice:
    """What a guide decides.

    Attributes:
        visible: (B, gh, gw) bool, True = seen.
        scores: (B, gh * gw) that it decided by, higher = rather hidden; with a gradient where they can be learnt.
    """

    visible: Tensor
    scores: Tensor


class Guide(nn.Module, ABC):
    """Hides the cells with the highest scores, as many of each image as a random mask hides.

    Only a share of the hidden cells goes by the scores, the others are random: what is hidden must not become the same
    in every epoch. The share grows evenly with the training, from none at its start.

    Args:
        share: of the hidden cells that go by the scores at the end of the training, in [0, 1].
    """

    def __init__(self, share: float = 0.5) -> None:
        super().__init__()
        self.share = share

    @abstractmethod
    def scores(self, encoder: Encoder, image: Tensor) -> Tensor:
        """Scores every cell, higher = rather hidden, without gradient into the encoder.

        Args:
            encoder: the one that is being trained.
            image: (B, C, H, W), normalised, whole.

        Returns:
            (B, gh * gw) float.
        """

    def choose(self, encoder: Encoder, image: Tensor, visible: Tensor, noise: Tensor, progress: float) -> Choice:
        """Chooses what is hidden.

        Args:
            encoder: the one that is being trained.
            image: (B, C, H, W), normalised, whole.
            visible: (B, gh, gw) bool, a random mask; how many cells it hides of each image is kept.
            noise: (B, gh, gw) float in [0, 1): of what does not go by scores the cells with the least are hidden.
            progress: share of the training that is done, in [0, 1].
        """
        scores = self.scores(encoder, image)
        chosen = hide_by_score(scores.detach(), visible, noise, self.share * progress)
        return Choice(chosen, scores)

    def loss(self, scores: Tensor, errors: Tensor, counted: Tensor) -> Tensor | None:
        """What the guide learns by from a step, a scalar; None where it learns nothing.

        Args:
            scores: (B, M) as chosen by, of some cells.
            errors: (B, M) of the model at these cells, without gradient.
            counted: (B, M) bool, which of them count.
        """
        return None


class HardPatchGuide(Guide):
    """Hides what is hard to rebuild: a linear head foretells how the cells of an image rank in error.

    Hard Patches Mining (Wang et al., CVPR 2023). The head reads what the encoder makes of the whole image, and learns
    by `ranking_loss` from the errors of the cells that were hidden. Nothing of that reaches the encoder.

    Args:
        encoder: its width, or that of its coarsest map, is the head's.
        share: of the hidden cells that go by the scores at the end of the training.
    """

    def __init__(self, encoder: Encoder, share: float = 0.5) -> None:
        super().__init__(share)
        width = encoder.map_channels[-1]
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)

    def scores(self, encoder: Encoder, image: Tensor) -> Tensor:
        """Foretells the rank of each cell's error, with a gradient for the head alone."""
        grid = encoder.grid()
        with observing(encoder):
            coarsest = encoder(image).maps[-1]  # (B, D, h, w)
            if tuple(coarsest.shape[-2:]) != grid:  # the strides of a CNN need not be the side of a cell
                coarsest = F.adaptive_avg_pool2d(coarsest, grid)
            cells = coarsest.flatten(2).transpose(1, 2)  # (B, gh * gw, D)
        scores: Tensor = self.head(self.norm(cells)).squeeze(-1)
        return scores.float()

    def loss(self, scores: Tensor, errors: Tensor, counted: Tensor) -> Tensor:
        """The ranking loss of the hidden cells, or of some drawn at random where they are very many."""
        if scores.shape[1] > MOST_COMPARED:
            drawn = torch.randperm(scores.shape[1], device=scores.device)[:MOST_COMPARED]
            scores, errors, counted = scores[:, drawn], errors[:, drawn], counted[:, drawn]
        return ranking_loss(scores, errors, counted)


class AttentionGuide(Guide):
    """Hides what the encoder attends to most (Kakogeorgiou et al., AttMask, ECCV 2022).

    The score of a cell is the attention that the class token pays to it in the last block, averaged over heads, the
    whole image being seen; without a class token, that of the mean query of all patches.

    Args:
        encoder: a plain ViT.
        share: of the hidden cells that go by the attention at the end of the training.

    Raises:
        ValueError: if the encoder has no such attention.
    """

    def __init__(self, encoder: Encoder, share: float = 0.5) -> None:
        super().__init__(share)
        if (missing := without_attention(encoder)) is not None:
            raise ValueError(f"{missing}; choose hard, or a ViT")

    def scores(self, encoder: Encoder, image: Tensor) -> Tensor:
        """The attention that is paid to each cell."""
        with observing(encoder):
            return attention_to_cells(encoder, image)


def hide_by_score(scores: Tensor, visible: Tensor, noise: Tensor, share: float) -> Tensor:
    """Hides as many cells of each image as a mask hides: a share of them by score, the others by noise.

    Args:
        scores: (B, gh * gw) float, the highest are hidden; of equal ones the earlier on the grid.
        visible: (B, gh, gw) bool, whose counts are kept.
        noise: (B, gh, gw) float; the lowest are hidden.
        share: by score, in [0, 1]; rounded to whole cells of each image.

    Returns:
        (B, gh, gw) bool.
    """
    count = (~visible).flatten(1).sum(dim=1, keepdim=True)  # (B, 1)
    by_score = _rank(-scores) < (count * share).round()
    by_noise = _rank(noise.flatten(1).masked_fill(by_score, -torch.inf))  # those that go by score come first
    return (by_noise >= count).view_as(visible)


def ranking_loss(scores: Tensor, errors: Tensor, counted: Tensor) -> Tensor:
    """Binary cross-entropy of which of two cells of an image has the larger error (Wang et al., CVPR 2023, eq. 4).

    Args:
        scores: (B, M); the difference of two are the log-odds that the first has the larger error.
        errors: (B, M); no gradient is passed to them.
        counted: (B, M) bool; pairs are made of these.

    Returns:
        Scalar, the mean over all pairs with different errors; 0 where there is none.
    """
    errors = errors.detach()
    odds = scores[:, :, None] - scores[:, None, :]  # (B, M, M)
    larger = errors[:, :, None] > errors[:, None, :]
    pairs = larger & counted[:, :, None] & counted[:, None, :]  # each pair once, the larger error first
    return (F.softplus(-odds) * pairs).sum() / pairs.sum().clamp(min=1)


def _rank(values: Tensor) -> Tensor:
    """Place of each value in ascending order along the last dimension; equal ones in their order."""
    order = values.argsort(dim=-1, stable=True)
    return torch.empty_like(order).scatter_(
        -1, order, torch.arange(order.shape[-1], device=order.device).expand_as(order)
    )
