"""The random patch mask as a MONAI dictionary transform, so that it composes with any MONAI pipeline."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms.transform import MapTransform, RandomizableTransform
from numpy.typing import NDArray

from mim.masking.patterns import GUIDED, LOOKING, Wanted, create_pattern


class RandPatchMaskd(RandomizableTransform, MapTransform):  # type: ignore[misc]  # monai is not typed
    """Adds a random mask over the patch grid to a sample: `visible`, (gh, gw) bool, True = seen.

    The image itself is left as it is: hiding is the encoder's work. All keys share one mask. With one ratio the count
    of hidden cells is exact, so that every sample of a batch hides equally many; only `foreground`, whose ratio is of
    the tissue of a film, hides another number in each film unless it is `exact`.

    For the patterns that a guide inside the model carries out, `hard` and `attention`, the mask is a random one that
    says how many cells to hide, and `mask_noise`, (gh, gw) float32 in [0, 1), is added beside it for the guide to draw
    by.

    Args:
        keys: keys of images (C, H, W); they must agree in height and width. Patterns that look at the film look at
            the first of them, which holds floats in [0, 1] or the whole numbers of uint8 or uint16.
        patch_size: side of one cell in pixels.
        masking_ratio: share of the cells that is hidden, in (0, 1); two of them = drawn evenly between for each sample.
        visible_key: key that the mask is stored under.
        allow_missing_keys: whether a sample may lack some (not all) of the keys.
        pattern: which cells are hidden: `random`, `block`, `grid`, `inverse_block`, `multi_block`, `foreground`,
            `texture`, `hard` or `attention`.
        unit: random: side of what is hidden together, in cells.
        guided_share: texture: share of the hidden cells that is drawn by texture.
        exact: foreground: whether films hide equally many cells.
        noise_key: key that the noise of guided patterns is stored under.

    Raises:
        ValueError: a setting that is out of range.
    """

    def __init__(
        self,
        keys: KeysCollection,
        patch_size: int = 16,
        masking_ratio: float | tuple[float, float] = 0.75,
        visible_key: str = "visible",
        allow_missing_keys: bool = False,
        pattern: str = "random",
        unit: int = 1,
        guided_share: float = 0.5,
        exact: bool = False,
        noise_key: str = "mask_noise",
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)
        if patch_size < 1:
            raise ValueError(f"patch_size must be at least 1 pixel, not {patch_size}")
        low, high = masking_ratio if isinstance(masking_ratio, tuple | list) else (masking_ratio, masking_ratio)
        if not 0 < low <= high < 1:
            raise ValueError(f"masking_ratio must lie between 0 and 1, the smaller first, not {masking_ratio}")
        self.patch_size = patch_size
        self.masking_ratio = masking_ratio
        self.visible_key = visible_key
        self.noise_key = noise_key if pattern in GUIDED else None
        self._range = (low, high)
        self._pattern = create_pattern(pattern, unit, guided_share, exact)
        self._looks = pattern in LOOKING

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the sample with `visible` added.

        Raises:
            ValueError: if an image is not a whole number of cells, or images differ in size.
            KeyError: if a key is missing and that is not allowed.
        """
        sample = dict(data)
        images = [sample[key] for key in self.key_iterator(sample)]
        sizes = {tuple(image.shape[-2:]) for image in images}
        if len(sizes) != 1:
            raise ValueError(f"the images under {self.keys} must share one size, found {sorted(sizes)}")
        height, width = sizes.pop()
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"an image of {height}x{width} is not a whole number of {self.patch_size}-pixel cells")
        grid = (height // self.patch_size, width // self.patch_size)
        low, high = self._range
        ratio = low if low == high else self.R.uniform(low, high)
        sample[self.visible_key] = self._pattern(Wanted(grid, ratio, self.R, _grey(images[0]) if self._looks else None))
        if self.noise_key is not None:
            sample[self.noise_key] = torch.from_numpy(self.R.random_sample(grid).astype(np.float32))
        return sample


def _grey(image: Any) -> NDArray[np.float32]:
    """(C, H, W), a tensor or an array, to (H, W) in [0, 1]: the mean over channels; whole numbers by their type."""
    pixels = np.asarray(image)
    scale = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1.0
    grey: NDArray[np.float32] = pixels.mean(axis=0, dtype=np.float32) / np.float32(scale)
    return grey
