"""What an encoder makes of an image behind a mask."""

import torch
from torch import Tensor

from mim.masking.mask import Mask
from mim.models.encoder import Encoder
from mim.models.features import Features


def seen(mask: Mask) -> Tensor:
    """What the network is given of a mask: the gate where there is one."""
    return mask.visible if mask.gate is None else mask.gate


def look(encoder: Encoder, image: Tensor, mask: Mask | None) -> tuple[Features, Tensor | None]:
    """Encodes what a mask shows.

    A mask of single pixels in front of an encoder with larger cells is a filter: a pixel that it hides is replaced by
    the mean of the film, and all cells are seen.

    Args:
        encoder: any encoder.
        image: (B, C, H, W), normalised.
        mask: of the encoder's grid, or of the image's pixels; None = all seen.

    Returns:
        The features, and what the encoder was told of the mask, (B, gh, gw).

    Raises:
        ValueError: the mask is neither of the encoder's grid nor of the image's pixels.
    """
    if mask is None:
        return encoder(image), None
    shown = seen(mask)
    if tuple(shown.shape[1:]) == encoder.grid():
        return encoder(image, shown), shown
    if shown.shape[1:] != image.shape[2:]:
        raise ValueError(
            f"the masker answers for a grid of {tuple(shown.shape[1:])}; the encoder's cells make "
            f"{encoder.grid()}, and the image has {tuple(image.shape[2:])} pixels"
        )
    grey = image.mean(dim=(2, 3), keepdim=True)
    return encoder(torch.lerp(grey, image, shown[:, None].to(image.dtype))), None
