"""Stored films to what the network meets: resized, and in training changed at random."""

import math
import os
import random
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mim.config.schema import AugmentConfig
from mim.data.store import Film
from mim.errors import MimError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # read while albumentations is imported: it asks the network
import albumentations as A

_ATTEMPTS = 10


class FilmTransform:
    """Turns a stored film into pixels for the network, the same way for the same seed.

    Args:
        steps: What albumentations does, one after the other.
    """

    def __init__(self, steps: list[Any]) -> None:
        self._compose = A.Compose(steps)

    def __call__(self, film: Film, seed: int = 0) -> NDArray[np.float32]:
        """Transform a film.

        Args:
            film: (H, W) uint8 or uint16.
            seed: Decides all that is random.

        Returns:
            (H', W') float32 in [0, 1].
        """
        # One generator for all steps, so that their draws are independent; Compose.set_random_seed would start every
        # step from the same seed and flip left-right whenever it flips top-bottom.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))  # noqa: S311
        pixels = film.astype(np.float32) / np.float32(np.iinfo(film.dtype).max)
        changed: NDArray[np.float32] = self._compose(image=pixels)["image"]
        return np.ascontiguousarray(changed)


def evaluation_transform(image_size: tuple[int, int]) -> FilmTransform:
    """Resize a film to (height, width): by area where it shrinks, else linearly."""
    return FilmTransform([A.Resize(*image_size, interpolation=cv2.INTER_LINEAR, area_for_downscale="image")])


def train_transform(augment: AugmentConfig, image_size: tuple[int, int]) -> FilmTransform:
    """Crop, resize to (height, width), flip, rotate and change the exposure at random, as configured.

    Raises:
        MimError: A range is empty or turned around.
    """
    for name in ("crop_scale", "crop_ratio"):
        low, high = getattr(augment, name)
        if not 0 < low <= high:
            raise MimError(f"augment.{name} [{low}, {high}]: must be two positive numbers, the smaller first")
    steps: list[Any] = [RandomFilmCrop(image_size, augment.crop_scale, augment.crop_ratio)]
    if augment.horizontal_flip:
        steps.append(A.HorizontalFlip(p=augment.horizontal_flip))
    if augment.vertical_flip:
        steps.append(A.VerticalFlip(p=augment.vertical_flip))
    if augment.rotate:
        steps.append(A.Rotate(limit=augment.rotate, border_mode=cv2.BORDER_CONSTANT, fill=0, p=1))
    if augment.brightness or augment.contrast:
        exposure = {"brightness_limit": augment.brightness, "contrast_limit": augment.contrast}
        steps.append(A.RandomBrightnessContrast(**exposure, brightness_by_max=True, p=1))
    return FilmTransform(steps)


class RandomFilmCrop(A.RandomResizedCrop):  # type: ignore[misc]  # albumentations is not typed
    """Cut a random part out of a film and resize it (Szegedy et al. 2015, section 6, with one difference).

    The aspect ratio drawn is relative to the film's own: films of any shape meet the network under the same squash as
    in evaluation, times that ratio.

    Args:
        size: (height, width) of what comes out.
        scale: Smallest and largest share of the film's area that is kept.
        ratio: Smallest and largest aspect ratio (width / height) of the part, relative to the film's.
    """

    def __init__(self, size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]) -> None:
        super().__init__(
            size=size, scale=scale, ratio=ratio, interpolation=cv2.INTER_LINEAR, area_for_downscale="image", p=1
        )

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the corners of the part, (x_min, y_min, x_max, y_max) in pixels."""
        film_height, film_width = params["shape"][:2]
        wide = high = 1.0  # shares of the film's width and height
        for _ in range(_ATTEMPTS):
            area = self.py_random.uniform(*self.scale)
            ratio = math.exp(self.py_random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if wide <= 1 and high <= 1:
                break
        width = min(film_width, max(1, round(film_width * wide)))
        height = min(film_height, max(1, round(film_height * high)))
        x = round(self.py_random.random() * (film_width - width))
        y = round(self.py_random.random() * (film_height - height))
        return {"crop_coords": (x, y, x + width, y + height)}
