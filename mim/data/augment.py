"""Stored films to what the network meets: a part cut out and resized, and in training changed at random."""

import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mim.config import AugmentConfig
from mim.data.cut import Cut
from mim.data.store import Film
from mim.errors import MimError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # read while albumentations is imported: it asks the network
import albumentations as A

_ATTEMPTS = 10
_NO_BOXES = np.empty((0, 4), np.float32)


@dataclass(frozen=True, slots=True)
class ChangedFilm:
    """A film after a transform, and what was drawn on it, changed in the same way.

    Attributes:
        image: (H', W') of the film's type.
        boxes: (M, 4) float32, x1, y1, x2, y2 in pixels of `image`, cut at its border.
        kept: (M,) which of the boxes that were given these are; one of which less than a pixel is left is gone.
        mask: (H', W'), or (H', W', M), of its own type, or None if none was given.
        cut: The part of the film that the image was made of, to the pixel; before a rotation.
    """

    image: Film
    boxes: NDArray[np.float32]
    kept: NDArray[np.int64]
    mask: NDArray[Any] | None
    cut: Cut


class FilmTransform:
    """Turns a stored film into pixels for the network, the same way for the same seed.

    Args:
        image_size: (height, width) of what comes out.
        augment: What is random; None = the whole film, as it is.
    """

    def __init__(self, image_size: tuple[int, int], augment: AugmentConfig | None = None) -> None:
        self.image_size = image_size
        self._augment = augment
        self._extras = _extras(augment) if augment is not None else None

    def __call__(self, film: Film, seed: int = 0, half: Film | None = None) -> Film:
        """Transform a film.

        Args:
            film: (H, W) uint8 or uint16.
            seed: Decides all that is random.
            half: The same film at half the size, if it is at hand: what is shrunk to half or less is read from it.

        Returns:
            (H', W') of the film's type: what makes floats of it can do so on the device of the network.
        """
        return self.together(film, seed, half).image

    def together(
        self,
        film: Film,
        seed: int = 0,
        half: Film | None = None,
        boxes: NDArray[np.float32] | None = None,
        mask: NDArray[Any] | None = None,
        place: Callable[[Cut], Cut] | None = None,
    ) -> ChangedFilm:
        """Transform a film, and boxes and pixels on it along with it. The image is that of a call without them.

        Args:
            film: (H, W) uint8 or uint16.
            seed: Decides all that is random.
            half: The same film at half the size, if it is at hand.
            boxes: (N, 4) x1, y1, x2, y2 as shares of the film's width and height.
            mask: (any height, any width) over the whole film, or several, (any height, any width, M); sampled, never
                mixed, so numbers of classes stay.
            place: Where the part that was drawn of the whole film is taken instead: in a window of it.
        """
        cut = Cut.whole()
        if self._augment is not None:
            rng = random.Random(seed)  # noqa: S311
            cut = draw_cut(rng, self._augment)
        if place is not None:
            cut = place(cut)
        image, cut = cut.image(film, half, self.image_size)
        moved, kept = cut.boxes(_NO_BOXES if boxes is None else boxes, self.image_size)
        cut_mask = None if mask is None else cut.mask(mask, self.image_size)
        changed = ChangedFilm(image, moved, kept, cut_mask, cut)
        return changed if self._extras is None else _apply(self._extras, rng.getrandbits(32), changed)


def evaluation_transform(image_size: tuple[int, int]) -> FilmTransform:
    """Resize a film to (height, width)."""
    return FilmTransform(image_size)


def train_transform(augment: AugmentConfig, image_size: tuple[int, int]) -> FilmTransform:
    """Crop, resize to (height, width), flip, rotate and change the exposure at random, as configured.

    Raises:
        MimError: A range is empty or turned around.
    """
    for name in ("crop_scale", "crop_ratio"):
        low, high = getattr(augment, name)
        if not 0 < low <= high:
            raise MimError(f"augment.{name} [{low}, {high}]: must be two positive numbers, the smaller first")
    return FilmTransform(image_size, augment)


def draw_cut(rng: random.Random, augment: AugmentConfig) -> Cut:
    """Draw a part of a film at random (Szegedy et al. 2015, section 6, with one difference), and whether it is flipped.

    The aspect ratio drawn is relative to the film's own: films of any shape meet the network under the same squash as
    in evaluation, times that ratio.

    Args:
        rng: What is drawn from.
        augment: `crop_scale`, `crop_ratio`, `horizontal_flip` and `vertical_flip` are read.
    """
    low, high = (math.log(ratio) for ratio in augment.crop_ratio)
    wide = tall = 1.0  # shares of the film's width and height
    for _ in range(_ATTEMPTS):
        area = rng.uniform(*augment.crop_scale)
        ratio = math.exp(rng.uniform(low, high))
        wide, tall = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if wide <= 1 and tall <= 1:
            break
    wide, tall = min(wide, 1.0), min(tall, 1.0)
    left, top = rng.random() * (1 - wide), rng.random() * (1 - tall)
    mirrored, upside_down = rng.random() < augment.horizontal_flip, rng.random() < augment.vertical_flip
    return Cut(left, top, left + wide, top + tall, mirrored, upside_down)


def _extras(augment: AugmentConfig) -> A.Compose | None:
    """What happens to the part that was cut out, by albumentations; None where nothing does."""
    steps: list[Any] = []
    if augment.rotate:
        steps.append(A.Rotate(limit=augment.rotate, border_mode=cv2.BORDER_CONSTANT, fill=0, fill_mask=0, p=1))
    if augment.brightness or augment.contrast:
        exposure = {"brightness_limit": augment.brightness, "contrast_limit": augment.contrast}
        steps.append(A.RandomBrightnessContrast(**exposure, brightness_by_max=True, p=1))
    boxes = A.BboxParams("pascal_voc", label_fields=["kept"], clip=True, min_width=1, min_height=1)
    return A.Compose(steps, bbox_params=boxes if augment.rotate else None) if steps else None


def _apply(extras: A.Compose, seed: int, film: ChangedFilm) -> ChangedFilm:
    # One generator for all steps, so that their draws are independent; Compose.set_random_seed would start every step
    # from the same seed.
    extras.set_random_state(np.random.default_rng(seed), random.Random(seed))  # noqa: S311
    white = np.float32(np.iinfo(film.image.dtype).max)
    given: dict[str, Any] = {"image": film.image / white}
    if film.mask is not None:
        given["mask"] = film.mask
    moved = "bboxes" in extras.processors  # a change of exposure alone moves none
    if moved:
        given |= {"bboxes": film.boxes, "kept": film.kept}
    changed = extras(**given)
    image: Film = np.rint(changed["image"].clip(0, 1) * white).astype(film.image.dtype)
    boxes = np.asarray(changed["bboxes"], np.float32).reshape(-1, 4) if moved else film.boxes
    kept = np.asarray(changed["kept"], np.int64) if moved else film.kept
    return ChangedFilm(image, boxes, kept, changed.get("mask"), film.cut)
