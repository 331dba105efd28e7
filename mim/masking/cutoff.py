"""Where to cut a distribution of scores in two: a given number, a quantile of the image, or Otsu's threshold."""

from typing import Literal

import torch
from torch import Tensor

OTSU_BINS = 256
QUANTILE = "quantile:"

Cutoff = float | str


def check_cutoff(cutoff: Cutoff) -> None:
    """Refuses what is no threshold.

    Raises:
        ValueError: it is neither a finite number, nor `otsu`, nor `quantile:` and a share from 0 to 1.
    """
    if isinstance(cutoff, str):
        if cutoff == "otsu":
            return
        try:
            share = float(cutoff.removeprefix(QUANTILE)) if cutoff.startswith(QUANTILE) else -1.0
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise ValueError(f"a threshold is a number, otsu, or quantile:0.3 (a share from 0 to 1), not {cutoff!r}")
    elif not torch.tensor(float(cutoff)).isfinite():
        raise ValueError(f"a threshold must be finite, not {cutoff}")


def find_cutoffs(scores: Tensor, cutoff: Cutoff) -> Tensor:
    """Finds the threshold of each image.

    Args:
        scores: (B, ...) float.
        cutoff: as `check_cutoff` lets it through.

    Returns:
        (B,), in the units of the scores.
    """
    # in float32 a threshold of 0.1 lies above a score of 0.1 in float64
    flat = scores.flatten(1).to(torch.promote_types(scores.dtype, torch.float32))
    if cutoff == "otsu":
        return otsu(flat)
    if isinstance(cutoff, str):
        share = float(cutoff.removeprefix(QUANTILE))
        return flat.quantile(share, dim=1)
    return flat.new_full((len(flat),), float(cutoff))


def otsu(values: Tensor) -> Tensor:
    """The threshold that parts each row into the two groups whose means lie furthest apart.

    Otsu, A threshold selection method from gray-level histograms, IEEE Transactions on Systems, Man, and Cybernetics
    9 (1979): the variance between the groups is greatest. Values at or above it are the upper group.

    Args:
        values: (B, N) float.

    Returns:
        (B,): the lower edge of the upper group's first bin, of 256 bins between a row's least and largest value; the
        value itself where all are equal.
    """
    low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    span = (high - low).clamp(min=torch.finfo(values.dtype).tiny)
    bins = ((values - low) / span * OTSU_BINS).long().clamp(max=OTSU_BINS - 1)  # (B, N)
    counts = torch.zeros(len(values), OTSU_BINS, dtype=torch.float64, device=values.device)
    counts.scatter_add_(1, bins, torch.ones_like(bins, dtype=torch.float64))
    centres = torch.arange(OTSU_BINS, dtype=torch.float64, device=values.device)
    below = counts.cumsum(dim=1)[:, :-1]  # cells in bins 0 to k, for a cut behind bin k
    above = values.shape[1] - below
    sums = (counts * centres).cumsum(dim=1)
    mean_below = sums[:, :-1] / below.clamp(min=1)
    mean_above = (sums[:, -1:] - sums[:, :-1]) / above.clamp(min=1)
    between = below * above * (mean_above - mean_below).square()
    best = between.argmax(dim=1, keepdim=True) + 1  # of equal ones the lowest
    cut = low + best.to(values.dtype) / OTSU_BINS * (high - low)
    return cut.squeeze(1)


Direction = Literal["above", "below"]


def kept(scores: Tensor, cutoffs: Tensor, keep: Direction) -> Tensor:
    """Says what is kept: scores at or above each image's threshold, or at or below it.

    Args:
        scores: (B, gh, gw).
        cutoffs: (B,).
        keep: `above` or `below`.
    """
    # as torch compares a tensor with a number: rounded to the tensor's own type, but never to whole numbers
    dtype = scores.dtype if scores.is_floating_point() else cutoffs.dtype
    limits = cutoffs.view(-1, *(1,) * (scores.ndim - 1)).to(dtype)
    return scores >= limits if keep == "above" else scores <= limits
