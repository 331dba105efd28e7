"""A masker that keeps the cells whose score reaches a threshold."""

import logging
from collections.abc import Callable, Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from mim.masking.cutoff import Cutoff, Direction, check_cutoff, find_cutoffs, kept
from mim.masking.mask import Mask, keep_best_cell
from mim.masking.scores import SCORES, Score, score_cells, score_pixels

logger = logging.getLogger(__name__)

MOST_SORTED = 2**20  # values of a batch that its distribution is told by
ModelScore = Literal["reconstruction_error", "attention"]
ScoreSource = Callable[[dict[str, Tensor]], Tensor]
MODEL_SCORES: tuple[str, ...] = get_args(ModelScore)  # made by a model, which this room does not know


class ThresholdMasker(nn.Module):
    """Keeps the cells whose score is at or above a threshold (or at or below it); nothing is learned.

    An image in which no cell qualifies keeps its best one, for an encoder cannot look at nothing; `Mask.rescued` tells
    which images these were.

    Args:
        threshold: compared with the score; `values >= threshold` are kept. A number; `otsu`, Otsu's threshold of each
            image; or `quantile:0.3`, so that about that share of each image's cells falls below.
        score: `intensity`, the mean of the cell's pixels; `gradient`, the mean length of the pixel gradient by
            central differences (per pixel); `variance`, the variance of the cell's pixels; `reconstruction_error` or
            `attention`, which `source` gives; a tensor (gh, gw) or (B, gh, gw) of scores from elsewhere; or what makes
            such a tensor from a batch.
        keep: `above` or `below` the threshold; a score equal to it is kept either way.
        patch_size: side of one cell in pixels; with `per="pixel"` the window that a variance is taken over.
        per: `patch` decides for each cell; `pixel` for each pixel, for an encoder whose cells are pixels.
        source: what makes the scores that need a model, from a batch: `mim.tasks.ReconstructionError` of a pretrained
            model, `mim.tasks.AttentionScore` of an encoder. A module is part of this one, weights and all.

    Raises:
        ValueError: a word that is not known, or a score that needs a source and has none.
    """

    scores: Tensor | None

    def __init__(
        self,
        threshold: Cutoff,
        score: Score | ModelScore | Tensor | ScoreSource = "intensity",
        keep: Direction = "above",
        patch_size: int = 16,
        per: Literal["patch", "pixel"] = "patch",
        source: ScoreSource | None = None,
    ) -> None:
        super().__init__()
        check_cutoff(threshold)
        if isinstance(score, str):
            _check_word(score, source, per)
        elif source is not None:
            raise ValueError("score and source both make scores; give score='reconstruction_error' or 'attention'")
        if keep not in ("above", "below"):
            raise ValueError(f"keep must be above or below, not {keep!r}")
        if per not in ("patch", "pixel"):
            raise ValueError(f"per must be patch or pixel, not {per!r}")
        self.threshold = threshold
        self.keep = keep
        self.patch_size = patch_size
        self.per = per
        self.register_buffer("scores", score if isinstance(score, Tensor) else None, persistent=False)
        self._word = score if isinstance(score, str) else None
        # as an attribute it is part of this module, where it is one
        self.source: ScoreSource | None = score if callable(score) and not isinstance(score, Tensor) else source
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
        if self._word is not None and self.source is None:
            if self.per == "pixel":
                return score_pixels(image, cast(Score, self._word), self.patch_size | 1)
            return score_cells(image, cast(Score, self._word), self.patch_size)
        scores = self.scores if self.source is None else self.source(batch)
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
            some = scores.flatten()[:: 1 + scores.numel() // MOST_SORTED].float()
            quartiles = some.quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], device=scores.device))
            logger.warning(
                "the threshold %.4g keeps %s of a batch: scores are %s (least, quartiles, largest)",
                float(cutoffs.mean()),
                what,
                ", ".join(f"{float(one):.4g}" for one in quartiles),
            )


def _check_word(score: str, source: ScoreSource | None, per: str) -> None:
    known = (*SCORES, *MODEL_SCORES)
    if score not in known:
        raise ValueError(f"score must be {', '.join(known[:-1])} or {known[-1]}, not {score!r}")
    if score in SCORES:
        if source is not None:
            raise ValueError(f"score={score} is made of the pixels alone; a source is for {' and '.join(MODEL_SCORES)}")
        return
    if source is None:
        name, model = {
            "reconstruction_error": ("ReconstructionError", "a pretrained MaskedImageModel"),
            "attention": ("AttentionScore", "a ViT encoder"),
        }[score]
        raise ValueError(f"score={score} is made by a model: give source=mim.tasks.{name}({model})")
    if per == "pixel":
        raise ValueError(f"score={score} is of cells, not of pixels; give per='patch'")
