"""A part of a film, and how it becomes an image, boxes and a mask of one size under one geometry."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mim.data.store import Film


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a film, its borders as shares of the film's width and height.

    Attributes:
        left: 0 = the film's left border.
        top: 0 = the film's upper border.
        right: 1 = the film's right border.
        bottom: 1 = the film's lower border.
        mirrored: Left and right change places.
        upside_down: Top and bottom change places.
    """

    left: float
    top: float
    right: float
    bottom: float
    mirrored: bool = False
    upside_down: bool = False

    @classmethod
    def whole(cls) -> "Cut":
        """The whole film, as it lies."""
        return cls(0.0, 0.0, 1.0, 1.0)

    def image(self, film: Film, half: Film | None, size: tuple[int, int]) -> tuple[Film, "Cut"]:
        """Cut the part out of a film, resize and flip it.

        The part begins and ends at whole pixels. It is taken from the half size where that has no fewer pixels than
        the image is to have, so it is nowhere enlarged that need not be. Then it is resized linearly, in steps that
        pass no pixel over.

        Args:
            film: (H, W).
            half: The same film at half the size, if it is at hand.
            size: (H', W') of the image.

        Returns:
            The image (H', W') of the film's type, and the cut whose borders are those of the pixels that were taken.
        """
        part, cut = self._take(film)
        if half is not None:
            small, small_cut = self._take(half)
            if small.shape[0] >= size[0] and small.shape[1] >= size[1]:
                part, cut = small, small_cut
        image = _resize(part, size)
        if self.mirrored or self.upside_down:
            image = cv2.flip(image, -1 if self.mirrored and self.upside_down else int(self.mirrored))
        return image, cut

    def boxes(self, boxes: NDArray[np.float32], size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find where boxes on the film lie in the image.

        Args:
            boxes: (N, 4) x1, y1, x2, y2 as shares of the film's width and height.
            size: (H', W') of the image.

        Returns:
            (M, 4) x1, y1, x2, y2 in pixels of the image, cut at its border, of those of which at least a pixel is
            left; and (M,) which of the boxes they are.
        """
        if len(boxes) == 0:
            return np.empty((0, 4), np.float32), np.empty(0, np.int64)
        height, width = size
        x = (boxes[:, 0::2] - self.left) / (self.right - self.left)
        y = (boxes[:, 1::2] - self.top) / (self.bottom - self.top)
        x = 1 - x[:, ::-1] if self.mirrored else x
        y = 1 - y[:, ::-1] if self.upside_down else y
        corners = np.stack([x[:, 0] * width, y[:, 0] * height, x[:, 1] * width, y[:, 1] * height], axis=1)
        corners = corners.clip(0, [width, height, width, height])
        kept = np.flatnonzero((corners[:, 2:] - corners[:, :2] >= 1).all(axis=1))
        return corners[kept].astype(np.float32), kept

    def mask(self, mask: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
        """Take from a mask over the whole film the value under the middle of each pixel of the image.

        Args:
            mask: (any height, any width), or several, (any height, any width, M).
            size: (H', W') of the image.
        """
        rows = _under(self.top, self.bottom, size[0], mask.shape[0], turned=self.upside_down)
        columns = _under(self.left, self.right, size[1], mask.shape[1], turned=self.mirrored)
        return mask[np.ix_(rows, columns)]

    def _take(self, film: Film) -> tuple[Film, "Cut"]:
        height, width = film.shape
        wide = max(1, round((self.right - self.left) * width))
        tall = max(1, round((self.bottom - self.top) * height))
        x, y = min(round(self.left * width), width - wide), min(round(self.top * height), height - tall)
        borders = (x / width, y / height, (x + wide) / width, (y + tall) / height)
        return film[y : y + tall, x : x + wide], Cut(*borders, self.mirrored, self.upside_down)


def _resize(part: Film, size: tuple[int, int]) -> Film:
    """Resize linearly, in as many steps as it takes that none shrinks a direction to less than half.

    A linear sample looks at two pixels in each direction: in a larger step it would pass some over. A step of exactly
    two averages pixels by twos.
    """
    height, width = part.shape
    while height > 2 * size[0] or width > 2 * size[1]:
        height, width = ((now + 1) // 2 if now > 2 * then else now for now, then in zip(part.shape, size, strict=True))
        part = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)
    resized: Film = cv2.resize(part, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return resized


def _under(low: float, high: float, pixels: int, cells: int, *, turned: bool) -> NDArray[np.int64]:
    """Which cells of a mask lie under the middles of an image's pixels, in one direction."""
    middles = low + (np.arange(pixels) + 0.5) / pixels * (high - low)
    found: NDArray[np.int64] = np.minimum((middles * cells).astype(np.int64), cells - 1)
    return found[::-1] if turned else found
