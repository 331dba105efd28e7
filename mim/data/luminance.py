"""From colour to gray."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WEIGHTS = (0.299, 0.587, 0.114)


def rec601(channels: NDArray[Any], top: float) -> NDArray[np.float32]:
    """Return the luminance of ITU-R BT.601.

    Args:
        channels: (..., 3): red, green, blue.
        top: The value of full intensity.

    Returns:
        (...) in [0, 1] where `channels` is in [0, `top`].
    """
    gray = np.zeros(channels.shape[:-1], dtype=np.float32)
    for channel, weight in enumerate(_WEIGHTS):
        gray += channels[..., channel] * np.float32(weight / top)
    return np.minimum(gray, 1, out=gray)
