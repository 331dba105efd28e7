"""What tasks share that mark places on a film, of which nothing is known where it is hidden."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

import torch
from torch import Tensor, nn

from mim.masking.learned import PatchMasker
from mim.masking.threshold import ThresholdMasker
from mim.models.features import Features
from mim.models.pyramid import Gated
from mim.tasks.mask_training import MaskTraining

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
