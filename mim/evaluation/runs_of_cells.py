"""Masks as lengths of runs, to be written as JSON."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mim.errors import MimError

Cells = npt.NDArray[np.bool_]

_MOST_CELLS = 200_000_000  # of the largest film that is read


def to_runs(mask: Cells) -> dict[str, Any]:
    """Encode a mask (h, w), row by row: how many are False, then True, and so on in turn; the first may be 0."""
    flat = mask.ravel()
    borders = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate(([0], borders, [flat.size]))).tolist()
    return {"shape": list(mask.shape), "runs": [0, *lengths] if flat.size and flat[0] else lengths}


def from_runs(encoded: Mapping[str, Any]) -> Cells:
    """Decode what `to_runs` gave.

    Raises:
        MimError: It is not that.
    """
    try:
        height, width = (int(number) for number in encoded["shape"])
        lengths = np.asarray(encoded["runs"], dtype=np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise MimError(f"a mask of runs cannot be understood ({type(error).__name__})") from error
    if min(height, width) < 1 or height * width > _MOST_CELLS:
        raise MimError(f"a mask of runs has a shape of {height} x {width}")
    # each is held against the whole first, as the sum of enormous ones begins again at zero
    if lengths.ndim != 1 or ((lengths < 0) | (lengths > height * width)).any() or lengths.sum() != height * width:
        raise MimError(f"a mask of runs does not fill its {height} x {width} cells")
    mask: Cells = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(height, width)
    return mask
