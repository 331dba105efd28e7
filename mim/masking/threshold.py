"""A masker that keeps the cells whose score reaches a threshold."""

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mim.masking.cutoff import Cutoff, Direction, check_cutoff, find_cutoffs, kept
from mim.masking.mask import Mask, keep_best_cell
from mim.masking.scores import SCORES, Score, score_cells, score_pixels

logger = logging.getLogger(__name__)

ScoreSource = Callable[[dict[str, Tensor]], Tensor]


class ThresholdMasker(nn.Module):
    """Keeps the cells whose score is at or above a threshold (or at or below it); nothing is learned.

    An image in which no cell qualifies keeps its best one, for an encoder cannot look at nothing; `Mask.rescued` tells
    which images these were.

    Args:
        threshold: compared with the score; `values >= threshold` are kept. A number; `otsu`, Otsu's threshold of each
            image; or `quantile:0.3`, so that about that share of each image's cells falls below.
        score: `intensity`, the mean of the cell's pixels; `gradient`, the mean length of the pixel gradient by
            central differences (per pixel); `variance`, the variance of the cell's pixels; a tensor (gh, gw) or
            (B, gh, gw) of scores from elsewhere; or what makes such a tensor from a batch.
        keep: `above` or `below` the threshold; a score equal to it is kept either way.
        patch_size: side of one cell in pixels; with `per="pixel"` the window that a variance is taken over.
        per: `patch` decides for each cell; `pixel` for each pixel, for an encoder whose cells are pixels.

    Raises:
        ValueError: a word that is not known.
    """

    scores: Tensor | None

    def __init__(
        self,
        threshold: Cutoff,
        score: Score | Tensor | ScoreSource = "intensity",
        keep: Direction = "above",
        patch_size: int = 16,
        per: Literal["patch", "pixel"] = "patch",
    ) -> None:
        super().__init__()
        check_cutoff(threshold)
        if isinstance(score, str) and score not in SCORES:
            raise ValueError(f"score must be {', '.join(SCORES[:-1])} or {SCORES[-1]}, not {score!r}")
        if keep not in ("above", "below"):
            raise ValueError(f"keep must be above or below, not {keep!r}")
        if per not in ("patch", "pixel"):
            raise ValueError(f"per must be patch or pixel, not {per!r}")
        self.threshold = threshold
        self.keep = keep
        self.patch_size = patch_size
        self.per = per
        self.register_buffer("scores", score if isinstance(score, Tensor) else None, persistent=False)
        self._score = None if isinstance(score, Tensor) else score
        self._warned: set[str] = set()

    def forward(self, batch: dict[str, Tensor]) -> Mask:
        """Decides from `batch["image"]`, (B, C, H, W) with pixels in [0, 1].

        Returns:
            A mask without gate; its scores are those compared with the threshold.

        Raises:
            ValueError: scores from elsewhere are of another grid.
        """
        scores = self.score(batch)  # (B, gh, gw)
        cutoffs = find_cutoffs(scores, self.threshold)
        visible = kept(scores, cutoffs, self.keep)
        self._warn(visible, scores, cutoffs)
        rescued = ~visible.flatten(1).any(dim=1)
        visible = keep_best_cell(visible, scores if self.keep == "above" else -scores)
        return Mask(visible=visible, scores=scores, rescued=rescued)

    def sweep(self, batch: dict[str, Tensor], thresholds: Sequence[Cutoff]) -> Tensor:
        """Asks for several thresholds at once; scores are made once. Nothing is rescued.

        Returns:
            (T, B, gh, gw) bool, what each of the T thresholds keeps.
        """
        for threshold in thresholds:
            check_cutoff(threshold)
        scores = self.score(batch)
        return torch.stack([kept(scores, find_cutoffs(scores, one), self.keep) for one in thresholds])

    def score(self, batch: dict[str, Tensor]) -> Tensor:
        """What is compared with the threshold: (B, gh, gw), or (B, H, W) with `per="pixel"`.

        Raises:
            ValueError: scores from elsewhere are of another grid.
        """
        image = batch["image"]
        if isinstance(self._score, str):
            if self.per == "pixel":
                return score_pixels(image, self._score, self.patch_size | 1)
            return score_cells(image, self._score, self.patch_size)
        scores = self.scores if self._score is None else self._score(batch)
        assert scores is not None
        cell = 1 if self.per == "pixel" else self.patch_size
        grid = (image.shape[-2] // cell, image.shape[-1] // cell)
        if (
            tuple(scores.shape[-2:]) != grid
            or scores.ndim not in (2, 3)
            or (scores.ndim == 3 and len(scores) != len(image))
        ):
            raise ValueError(
                f"scores are {tuple(scores.shape)}; for {len(image)} images of {image.shape[-2]}x{image.shape[-1]} and "
                f"cells of {cell} pixels they must be {grid} or {(len(image), *grid)}"
            )
        return scores.to(image.device).expand(len(image), *grid)

    def _warn(self, visible: Tensor, scores: Tensor, cutoffs: Tensor) -> None:
        """Says once if a whole batch keeps nothing, or everything."""
        share = visible.float().mean()
        what = "nothing" if share == 0 else "everything" if share == 1 else ""
        if what and what not in self._warned:
            self._warned.add(what)
            quartiles = scores.float().quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], device=scores.device))
            logger.warning(
                "the threshold %.4g keeps %s of a batch: scores are %s (least, quartiles, largest)",
                float(cutoffs.mean()),
                what,
                ", ".join(f"{float(one):.4g}" for one in quartiles),
            )


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
