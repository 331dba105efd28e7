"""Patterns that look at the film: tissue before air, texture before flat areas."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mim.masking.cutoff import otsu
from mim.masking.patterns.pattern import Wanted


@dataclass(frozen=True)
class Foreground:
    """Hides tissue: the ratio is counted on the cells that are brighter than air, each equally likely.

    Air stays visible. Hidden, it would be counted in the loss, and "black" is an answer that costs nothing and teaches
    nothing. Seen, it is input like any other, so every hiding mode can do it, and there is always something to see.
    The price is that films hide different numbers of cells, and that a network that drops hidden tokens drops fewer.
    With `exact`, air is hidden at the ratio of the whole grid too: then every film hides the same number of cells, and
    still the same share of its tissue, which chance alone does not give.

    A film in which no air can be told from tissue is all tissue.

    Attributes:
        exact: whether films hide equally many cells.
    """

    exact: bool = False

    def __call__(self, wanted: Wanted) -> Tensor:
        """Draws a mask for the image."""
        tissue = is_tissue(cell_means(wanted.image, wanted.grid)).ravel()
        order, ratio, hide = wanted.generator.permutation(tissue.size), wanted.ratio, wanted.hidden
        of_tissue, of_air = order[tissue[order]], order[~tissue[order]]
        if len(of_air) == 0:
            hidden = of_tissue[:hide]
        else:
            count = min(round(ratio * len(of_tissue)), hide) if self.exact else round(ratio * len(of_tissue))
            count = min(max(count, 1), max(len(of_tissue) - 1, 1))
            hidden = np.concatenate([of_tissue[:count], of_air[: hide - count if self.exact else 0]])
            if self.exact and len(hidden) < hide:  # rounding: less air than is left to hide
                hidden = np.concatenate([hidden, of_tissue[count : count + hide - len(hidden)]])
        visible = np.ones(tissue.size, dtype=bool)
        visible[hidden] = False
        return torch.from_numpy(visible.reshape(wanted.grid))


@dataclass(frozen=True)
class Texture:
    """Hides textured cells rather than flat ones.

    A share of the hidden cells is drawn without replacement with odds in proportion to the variance of their pixels,
    the rest at random from what is left. Every cell can be hidden and every cell can be seen.

    Attributes:
        share: of the hidden cells that is drawn by texture, in [0, 1].
    """

    share: float = 0.5

    def __call__(self, wanted: Wanted) -> Tensor:
        """Draws a mask for the image."""
        variance, generator, count = cell_variances(wanted.image, wanted.grid).ravel(), wanted.generator, wanted.hidden
        # Efraimidis and Spirakis 2006: the largest of log(uniform) / weight are a weighted draw without replacement;
        # flat cells share one tiny weight, so that they come last and among themselves at random
        keys = np.log(1 - generator.random_sample(variance.size)) / np.maximum(variance, 1e-9)
        by_texture = np.argsort(-keys, kind="stable")[: round(self.share * count)]
        others = generator.permutation(np.setdiff1d(np.arange(variance.size), by_texture))
        visible = np.ones(variance.size, dtype=bool)
        visible[by_texture] = False
        visible[others[: count - len(by_texture)]] = False
        return torch.from_numpy(visible.reshape(wanted.grid))


def cell_means(image: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float64]:
    """Mean of the pixels of each cell, (gh, gw), of an image (H, W)."""
    means: NDArray[np.float64] = _cells(image, grid).mean(axis=(1, 3), dtype=np.float64)
    return means


def cell_variances(image: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float64]:
    """Variance of the pixels of each cell, (gh, gw), of an image (H, W)."""
    variances: NDArray[np.float64] = _cells(image, grid).var(axis=(1, 3), dtype=np.float64)
    return variances


def is_tissue(means: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tells tissue from air: brighter than half of Otsu's threshold of the cell means (IEEE Trans. SMC 9(1), 1979).

    The threshold itself parts bone and mediastinum from the rest, and would take lungs and cheeks for air. Air is 0.

    Args:
        means: of the cells in [0, 1], any shape, at least one.

    Returns:
        Of the same shape, True = tissue; all of it where nothing is brighter than air.
    """
    threshold = float(otsu(torch.from_numpy(means.reshape(1, -1)))[0])
    tissue = np.asarray(means > threshold / 2)
    return tissue if tissue.any() else np.ones(means.shape, dtype=bool)


def _cells(image: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    rows, columns = grid
    return image.reshape(rows, image.shape[0] // rows, columns, image.shape[1] // columns)
