"""What tasks share that mark places on a film, of which nothing is known where it is hidden."""

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

import torch
from torch import Tensor, nn

from mim.masking.grids import GridFit
from mim.masking.learned import PatchMasker
from mim.masking.mask import Mask
from mim.masking.threshold import ThresholdMasker
from mim.models.encoder import Encoder
from mim.models.features import Features
from mim.models.pyramid import Gated
from mim.tasks.look import seen
from mim.tasks.mask_training import MaskTraining, Rebuilding
from mim.tasks.staged import Rest, staged_plan

logger = logging.getLogger("mim")

Marks = Literal["boxes", "pixels"]
LEAST_SEEN: Final = 0.5
NOT_TO_FOLLOW: Mapping[Marks, str] = MappingProxyType(
    {
        "boxes": "what a detector says are boxes, not probabilities",
        "pixels": "Dice compares with pixels that are sought or are not, not with probabilities",
    }
)


def stacked(parts: Sequence[tuple[Features, Tensor | None]]) -> tuple[list[Tensor], Gated | None]:
    """Maps of parts of a batch as those of one, and what of tokens stands behind gates, if there are any.

    Args:
        parts: features, and what the encoder was told of the mask, as `look` gives them.
    """
    if len(parts) == 1 and parts[0][0].content is None:
        return list(parts[0][0].maps), None
    maps = [torch.cat(level) for level in zip(*(features.maps for features, _ in parts), strict=True)]
    if all(features.content is None for features, _ in parts):
        return maps, None
    content, gate = [], []
    for features, shown in parts:
        coarsest = features.maps[-1]
        content.append(coarsest if features.content is None else features.content)
        gate.append(coarsest.new_ones(len(coarsest), *coarsest.shape[2:]) if shown is None else shown.float())
    return maps, Gated(torch.cat(content), torch.cat(gate))


def check_recipe(recipe: MaskTraining, marks: Marks) -> None:
    """Refuses what a masker in front of a network that marks places cannot be taught by.

    Args:
        recipe: of the training.
        marks: what the network gives.

    Raises:
        ValueError: naming the field.
    """
    if recipe.random_keep[0] < LEAST_SEEN:
        raise ValueError(
            f"random_keep {list(recipe.random_keep)}: nothing is found in hidden cells; for {marks} let random masks "
            f"keep at least {LEAST_SEEN:g}"
        )
    if recipe.follow == "network":
        raise ValueError(
            f"follow=network: {NOT_TO_FOLLOW[marks]} that a masker could come to; for {marks} give follow=label"
        )


def kept_share(masker: nn.Module | None) -> float | None:
    """The share of cells that a masker's settings say is visible; None where they do not, or where none is hidden."""
    if isinstance(masker, PatchMasker):
        return None if masker.gate == "soft" else masker.keep
    if isinstance(masker, ThresholdMasker) and isinstance(masker.threshold, str) and ":" in masker.threshold:
        share = float(masker.threshold.partition(":")[2])
        return 1 - share if masker.keep == "above" else share
    return None


class DenseTask(nn.Module):
    """What tasks that mark places have in common: a masker that hides at most half, taught in stages where it learns.

    A task of this kind sets `head` after this. A masker that hides more than half is refused where its settings say so,
    and told of where only the films do; a soft gate may weigh cells as it likes.

    Args:
        encoder: any encoder.
        masker: `masker(batch) -> Mask`, or None: everything is seen.
        marks: what the task gives.
        mean: subtracted from pixels in [0, 1].
        std: what the difference is divided by.
        mask_training: for a masker that learns; None = `MaskTraining` whose random masks show at least half.
        rebuilding: gives the error of rebuilding what a mask hides; needed where `mask_training` has a weight for it.

    Raises:
        ValueError: the masker, or random masks, hide more than half; or the masker is to follow the network.
    """

    def __init__(
        self,
        encoder: Encoder,
        masker: nn.Module | None,
        marks: Marks,
        mean: float,
        std: float,
        mask_training: MaskTraining | None,
        rebuilding: Rebuilding | None,
    ) -> None:
        super().__init__()
        share = kept_share(masker)
        if share is not None and share < LEAST_SEEN:
            raise ValueError(
                f"the masker shows {share:.0%} of the cells, and nothing is known of those that are hidden: for "
                f"{marks} let it show at least half (masker.keep, masker.threshold)"
            )
        self.mask_training = mask_training or MaskTraining(random_keep=(LEAST_SEEN, 1.0))
        check_recipe(self.mask_training, marks)
        self.encoder = encoder
        encoder.set_normalisation(mean, std)
        self.masker = masker
        self.mean = mean
        self.std = std
        self.rebuilding = rebuilding
        self.fit_to_grid = GridFit()
        self.progress: float | None = None
        self._rest = Rest()
        self._warned = False

    def learning_plan(self) -> Mapping[str, tuple[float, tuple[tuple[float, float], ...]]]:
        """Of parts by name: a factor on the learning rate, and the shares of the training between which they learn."""
        if not isinstance(self.masker, PatchMasker):
            return {}
        return staged_plan(self.mask_training, ("encoder", "head"), "masker")

    def decide(self, batch: dict[str, Tensor]) -> Mask | None:
        """What the masker lets the encoder see, on the encoder's grid; None = everything.

        A decision about pixels is a filter, and stays as it is.
        """
        if self.masker is None:
            return None
        mask: Mask = self.masker(batch)
        if isinstance(self.masker, PatchMasker) and self.masker.per == "pixel":
            return mask
        return self.fit_to_grid(mask, self.encoder.grid())

    def describe(self, mask: Mask | None, image: Tensor) -> dict[str, Tensor]:
        """`visible` (B, gh, gw) bool, `keep`, the share that was visible, and `scores`, where the masker has any.

        Outside training a mask that shows less than half is told of, once.
        """
        if mask is None:
            mask = Mask(torch.ones(len(image), *self.encoder.grid(), dtype=torch.bool, device=image.device))
        if not self.training:
            self._warn(mask)
        out = {"visible": mask.visible, "keep": seen(mask).float().mean()}
        return out if mask.scores is None else {**out, "scores": mask.scores}

    def _warn(self, mask: Mask) -> None:
        share = float(mask.visible.float().mean())
        if share < LEAST_SEEN and not self._warned:
            self._warned = True
            logger.warning(
                "the masker shows %.0f %% of these films: nothing is known of the rest; choose another threshold",
                100 * share,
            )
