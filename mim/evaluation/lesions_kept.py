"""How many lesions a threshold on scores of cells leaves to be seen, and which threshold leaves enough of them."""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from mim.errors import MimError
from mim.evaluation.lesion_recall import LEAST_VISIBLE, ROUNDING

Floats = npt.NDArray[np.float64]
Direction = Literal["above", "below"]


def last_thresholds(scores: npt.ArrayLike, lesions: Floats, keep: Direction) -> Floats:
    """Finds for each lesion the last threshold, going up (or down), at which half of its area is still visible.

    Args:
        scores: (L, gh, gw), of the cells of the film that each lesion is on.
        lesions: (L, gh, gw), the share of each lesion's area that lies in each cell; a lesion's cells add up to 1.
        keep: cells at or `above` a threshold are kept, or at or `below` it.

    Returns:
        (L,), each a score of a cell, to the last bit.
    """
    sign = 1.0 if keep == "above" else -1.0
    flat = sign * np.asarray(scores, dtype=np.float64).reshape(len(lesions), -1)
    order = np.argsort(-flat, axis=1, kind="stable")
    area = np.take_along_axis(lesions.reshape(len(lesions), -1), order, axis=1).cumsum(axis=1)
    first = np.argmax(area >= LEAST_VISIBLE - ROUNDING, axis=1)  # equal scores are kept together: no less is visible
    last: Floats = sign * np.take_along_axis(np.take_along_axis(flat, order, axis=1), first[:, None], axis=1)[:, 0]
    return last


def threshold_for_recall(last: Floats, recall: float, keep: Direction) -> float:
    """Chooses the threshold that hides most while a share of the lesions stays visible.

    Args:
        last: (L,) as `last_thresholds` gives them.
        recall: share of the lesions, in (0, 1].
        keep: as there.

    Raises:
        MimError: there is no lesion, or the share is no share.
    """
    if not 0 < recall <= 1:
        raise MimError(f"recall is {recall}; give a share of the lesions above 0 and at most 1, such as 0.98")
    if not len(last):
        raise MimError("there is no lesion to choose a threshold by")
    spared = math.floor(len(last) * (1 - recall) + ROUNDING)  # may be lost
    ordered = np.sort(last) if keep == "above" else np.sort(last)[::-1]
    return float(ordered[spared])
