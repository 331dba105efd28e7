"""The random patch mask as a MONAI dictionary transform, so that it composes with any MONAI pipeline."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms.transform import MapTransform, RandomizableTransform

from mim.masking.patterns import random_visible


class RandPatchMaskd(RandomizableTransform, MapTransform):  # type: ignore[misc]  # monai is not typed
    """Adds a random mask over the patch grid to a sample: `visible`, (gh, gw) bool, True = seen.

    The image itself is left as it is: hiding is the encoder's work. All keys share one mask. The count of hidden cells
    is exact, so that every sample of a batch hides equally many.

    Args:
        keys: keys of images (C, H, W); they must agree in height and width.
        patch_size: side of one cell in pixels.
        masking_ratio: share of the cells that is hidden, in (0, 1).
        visible_key: key that the mask is stored under.
        allow_missing_keys: whether a sample may lack some (not all) of the keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        patch_size: int = 16,
        masking_ratio: float = 0.75,
        visible_key: str = "visible",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)
        if patch_size < 1:
            raise ValueError(f"patch_size must be at least 1 pixel, not {patch_size}")
        if not 0 < masking_ratio < 1:
            raise ValueError(f"masking_ratio must lie between 0 and 1, not {masking_ratio}")
        self.patch_size = patch_size
        self.masking_ratio = masking_ratio
        self.visible_key = visible_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the sample with `visible` added.

        Raises:
            ValueError: if an image is not a whole number of cells, or images differ in size.
            KeyError: if a key is missing and that is not allowed.
        """
        sample = dict(data)
        sizes = {tuple(sample[key].shape[-2:]) for key in self.key_iterator(sample)}
        if len(sizes) != 1:
            raise ValueError(f"the images under {self.keys} must share one size, found {sorted(sizes)}")
        height, width = sizes.pop()
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"an image of {height}x{width} is not a whole number of {self.patch_size}-pixel cells")
        grid = (height // self.patch_size, width // self.patch_size)
        sample[self.visible_key] = random_visible(grid, self.masking_ratio, self.R)
        return sample
