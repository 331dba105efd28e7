"""What is removed from a film, in which order: patches or superpixels, a share at a time."""

import numpy as np
import numpy.typing as npt
from skimage.segmentation import slic

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Cells = npt.NDArray[np.bool_]

COMPACTNESS = 0.1
"""Of superpixels: how much nearness counts beside likeness. Films are in [0, 1], so it is small."""


def patch_parts(height: int, width: int, side: int) -> Integers:
    """Divides a film into squares, cut off at the right and lower border.

    Args:
        height: Of the film, in pixels.
        width: Of the film, in pixels.
        side: Of a square, in pixels.

    Returns:
        (height, width): the number of each pixel's square, row by row, from 0.
    """
    rows, columns = np.arange(height) // side, np.arange(width) // side
    numbers: Integers = rows[:, None] * (columns[-1] + 1) + columns[None]
    return numbers.astype(np.int64)


def superpixel_parts(image: npt.ArrayLike, count: int) -> Integers:
    """Divides a film along its edges (SLIC: Achanta et al., IEEE TPAMI 34, 2012).

    Args:
        image: (H, W) in [0, 1].
        count: About how many parts.

    Returns:
        (H, W): the number of each pixel's part, from 0 without gaps.
    """
    pixels = np.asarray(image, dtype=np.float64)
    parts = slic(pixels, n_segments=count, compactness=COMPACTNESS, sigma=1, start_label=0, channel_axis=None)
    return np.unique(parts, return_inverse=True)[1].reshape(pixels.shape).astype(np.int64)


def part_means(parts: Integers, values: npt.ArrayLike) -> Floats:
    """Mean of a map over each part: (H, W) and (H, W) -> (parts,)."""
    flat = parts.ravel()
    sums = np.bincount(flat, weights=np.asarray(values, dtype=np.float64).ravel())
    means: Floats = sums / np.bincount(flat)
    return means


def removed_at(parts: Integers, order: npt.ArrayLike, share: float) -> Cells:
    """Says which pixels are gone once a share of the film has been removed, part after part.

    A part is gone where its middle, counted in area, lies below the share: the area removed is as near to the share as
    whole parts allow.

    Args:
        parts: (H, W), the number of each pixel's part.
        order: (parts,) their numbers, the first to go first.
        share: Of the film, in [0, 1].

    Returns:
        (H, W), True = removed.
    """
    sequence = np.asarray(order, dtype=np.int64)
    areas = np.bincount(parts.ravel(), minlength=len(sequence))
    ends = np.cumsum(areas[sequence])
    middles = np.empty(len(sequence))
    middles[sequence] = (ends - areas[sequence] / 2) / parts.size
    gone: Cells = (middles < share)[parts]
    return gone


def to_cells(removed: Cells, grid: tuple[int, int]) -> Cells:
    """Brings what is removed to a coarser grid: a cell is hidden where at least half of its pixels are removed.

    Args:
        removed: (H, W).
        grid: Rows and columns; divisors of H and W.

    Returns:
        (rows, columns), True = hidden.
    """
    rows, columns = grid
    height, width = removed.shape
    shares = removed.reshape(rows, height // rows, columns, width // columns).mean(axis=(1, 3))
    hidden: Cells = shares >= 0.5
    return hidden


def cell_parts(parts: Integers, grid: tuple[int, int]) -> Integers:
    """Brings parts to the patch grid: each cell goes to the part that has most of its pixels.

    Args:
        parts: (H, W), the number of each pixel's part.
        grid: Rows and columns; divisors of H and W.

    Returns:
        (rows, columns), numbers from 0 without gaps; parts that have no cell are gone.
    """
    rows, columns = grid
    height, width = parts.shape
    cells = (
        parts.reshape(rows, height // rows, columns, width // columns).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    )
    most = np.array([[np.bincount(cell).argmax() for cell in row] for row in cells])
    return np.unique(most, return_inverse=True)[1].reshape(grid).astype(np.int64)
