"""Pixels of lesions on a plane for each class, packed so that they move through a transform as one mask."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mim.data.annotations import Lesion, draw_lesions

_BITS = 8


def draw_planes(lesions: Sequence[Lesion], size: tuple[int, int], planes: int) -> NDArray[np.uint8]:
    """Draw lesions on planes that may overlap; a transform that samples and never mixes keeps them.

    Args:
        lesions: Of one film.
        size: (height, width) of the stored film in pixels.
        planes: 1 = all on one; else each lesion on that of its label.

    Returns:
        (height, width), 1 where there is a lesion; of several planes (height, width, one byte for eight of them).
    """
    if planes == 1:
        return draw_lesions(lesions, size).view(np.uint8)
    packed = np.zeros((*size, -(-planes // _BITS)), np.uint8)
    for plane in sorted({lesion.label for lesion in lesions}):
        drawn = draw_lesions((lesion for lesion in lesions if lesion.label == plane), size)
        packed[drawn, plane // _BITS] |= np.uint8(1 << plane % _BITS)
    return packed


def take_planes(mask: NDArray[Any], planes: int) -> NDArray[np.bool_]:
    """Take apart what `draw_planes` drew: (planes, H, W)."""
    if planes == 1:
        whole: NDArray[np.bool_] = (mask != 0)[None]
        return whole
    bits = np.unpackbits(mask.reshape(*mask.shape[:2], -1), axis=2, count=planes, bitorder="little")
    taken: NDArray[np.bool_] = np.ascontiguousarray(bits.transpose(2, 0, 1)).astype(np.bool_)
    return taken
