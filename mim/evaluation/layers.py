"""What is laid over a film, each on its own, so that a reader can take it away: mask and explanation.

A layer over `film_picture` gives, within a grey level, what `mask_picture` and `explanation_picture` draw at once.
"""

import numpy as np
import numpy.typing as npt

from mim.evaluation.pictures import (
    AGAINST,
    DARKENED,
    FOR,
    HATCH,
    HATCH_STRENGTH,
    OUTLINE,
    TINT,
    Bytes,
    border_of,
    enlarge,
    hatching,
)

Floats = npt.NDArray[np.float64]


def mask_layer(visible: npt.ArrayLike, shape: tuple[int, int]) -> Bytes:
    """Darken, hatch and outline the cells that were not seen.

    Args:
        visible: (gh, gw), True = seen.
        shape: Height and width of the picture of the film.

    Returns:
        (h, w, 4) uint8, transparent where the film was seen.
    """
    hidden = enlarge(~np.asarray(visible, dtype=bool), shape)
    lines = hatching(shape).astype(np.float64) * HATCH_STRENGTH
    alpha = 1 - DARKENED * (1 - lines)  # what is left of the film: darkened, then hatched over
    colour = lines[:, :, None] / alpha[:, :, None] * np.array(HATCH, dtype=np.float64)
    layer = np.dstack([colour, alpha * 255]) * hidden[:, :, None]
    layer[border_of(hidden)] = (*OUTLINE, 255)
    return _bytes(layer)


def explanation_layer(scores: npt.ArrayLike, shape: tuple[int, int]) -> Bytes:
    """Tint the cells by what they do for an answer.

    Args:
        scores: (gh, gw): above 0 is orange, below 0 blue, the stronger the further from 0; NaN = not seen: no tint.
        shape: Height and width of the picture of the film.

    Returns:
        (h, w, 4) uint8.
    """
    values = np.nan_to_num(np.asarray(scores, dtype=np.float64), posinf=0.0, neginf=0.0)
    strength = enlarge(values / (float(np.abs(values).max()) or 1.0), shape)
    layer = np.zeros((*shape, 4))
    layer[strength > 0, :3] = FOR
    layer[strength < 0, :3] = AGAINST
    layer[:, :, 3] = 255 * TINT * np.abs(strength)
    return _bytes(layer)


def _bytes(layer: Floats) -> Bytes:
    rounded: Bytes = np.rint(layer).astype(np.uint8)
    return rounded
