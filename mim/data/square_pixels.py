"""Pixels that are higher than wide, or the other way round, made square."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mim.data.radiograph_types import refuse_oversized

_TOLERANCE = 0.01


def make_square(
    path: Path, pixels: NDArray[np.float32], spacing: tuple[float, float] | None, aspect: float
) -> tuple[NDArray[np.float32], tuple[float, float] | None]:
    """Resample by linear interpolation along the coarser axis, unless pixels are square to 1 %.

    Args:
        path: The file, for the error.
        pixels: (H, W).
        spacing: In mm (between rows, between columns), if known.
        aspect: Height to width of a pixel.

    Returns:
        The pixels, and their spacing in mm: the finer one along both axes.

    Raises:
        UnreadableRadiograph: "too-large".
    """
    if abs(aspect - 1) <= _TOLERANCE:
        return pixels, spacing
    rows, columns = square_size(pixels.shape[0], pixels.shape[1], aspect)
    refuse_oversized(path, rows, columns)
    resampled: Any = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return resampled, None if spacing is None else (min(spacing), min(spacing))


def square_size(rows: int, columns: int, aspect: float) -> tuple[int, int]:
    """Rows and columns once pixels are square, where height to width of a pixel is `aspect`."""
    if abs(aspect - 1) <= _TOLERANCE:
        return rows, columns
    return (round(rows * aspect), columns) if aspect > 1 else (rows, round(columns / aspect))
