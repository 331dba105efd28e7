"""How faithful an explanation is: what it points at, and how fast the answer goes when that is taken away.

An explanation is a score for each cell. Deletion hides the cells from the highest score on, insertion shows them in
that order (Petsiuk et al., RISE, BMVC 2018); the pointing game asks whether the highest score lies in a lesion (Zhang
et al., Top-down Neural Attention by Excitation Backprop, IJCV 2018).
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Cells = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


def importance_order(scores: npt.ArrayLike, among: npt.ArrayLike, generator: np.random.Generator) -> Integers:
    """Puts the cells that count in order, the highest score first; equal scores in random order.

    Args:
        scores: (rows, columns); NaN counts as lowest.
        among: (rows, columns) bool, the cells that count.
        generator: draws the order of ties, so that none of them gains from standing first on the grid.

    Returns:
        (M,) places on the row-major grid.
    """
    flat = np.nan_to_num(np.asarray(scores, dtype=np.float64).ravel(), nan=-np.inf)
    places = generator.permutation(np.flatnonzero(np.asarray(among, dtype=bool).ravel()))
    return places[np.argsort(-flat[places], kind="stable")].astype(np.int64)


def deletion_masks(order: npt.ArrayLike, among: npt.ArrayLike, points: int) -> Cells:
    """What is visible while cells are hidden in an order.

    Args:
        order: (M,) places of the cells that count.
        among: (rows, columns) bool, these cells.
        points: from nothing hidden to all of them.

    Returns:
        (points, rows, columns), True = visible; the first is `among`, the last shows nothing.
    """
    places, seen = np.asarray(order, dtype=np.int64), np.asarray(among, dtype=bool)
    masks = np.repeat(seen.ravel()[None], points, axis=0)
    for mask, count in zip(masks, counts_of(len(places), points), strict=True):
        mask[places[:count]] = False
    return masks.reshape(points, *seen.shape)


def insertion_masks(order: npt.ArrayLike, among: npt.ArrayLike, points: int) -> Cells:
    """What is visible while cells are shown in an order: (points, rows, columns), from nothing to `among`."""
    seen = np.asarray(among, dtype=bool)
    masks: Cells = seen & ~deletion_masks(order, among, points)
    return masks


def counts_of(cells: int, points: int) -> list[int]:
    """How many cells have been taken at each point, evenly spaced from none to all."""
    return [round(cells * point / (points - 1)) for point in range(points)]


def area_under(curves: npt.ArrayLike) -> Floats:
    """Area under curves whose points are evenly spaced over [0, 1], by trapezoids: (..., points) -> (...)."""
    values = np.asarray(curves, dtype=np.float64)
    area: Floats = np.trapezoid(values, dx=1 / (values.shape[-1] - 1), axis=-1)
    return area


def pointing_hit(scores: npt.ArrayLike, among: npt.ArrayLike, lesion: npt.ArrayLike) -> float:
    """Whether the highest score lies in a lesion.

    Args:
        scores: (rows, columns).
        among: (rows, columns) bool, the cells that the network saw.
        lesion: (rows, columns) bool, the cells that lesions touch.

    Returns:
        1 or 0; where several cells share the highest score, the share of them that is in a lesion. NaN where no cell
        counts.
    """
    counted = np.asarray(among, dtype=bool)
    if not counted.any():
        return float("nan")
    flat = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=-np.inf)
    highest = counted & (flat == flat[counted].max())
    return float(np.asarray(lesion, dtype=bool)[highest].mean())
