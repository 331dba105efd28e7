"""Words beside the boxes of a picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from mim.evaluation.pictures import BOX, Bytes, load_font

_SIZE = 11.0  # pixels
_BEHIND = (20, 26, 34)


def name_boxes(
    picture: Bytes, boxes: Sequence[Sequence[float]], names: Sequence[str], scale: tuple[float, float] = (1.0, 1.0)
) -> Bytes:
    """Write a name above the upper left corner of each box, or below where there is no room above.

    Args:
        picture: (h, w, 3) uint8.
        boxes: xyxy in pixels of the film that the picture shows.
        names: One for each box.
        scale: Width and height of a pixel of the film in those of the picture.

    Returns:
        A picture of the same size.
    """
    drawn = Image.fromarray(picture)
    draw = ImageDraw.Draw(drawn)
    font = load_font(_SIZE)
    for (x1, y1, _, y2), name in zip(boxes, names, strict=True):
        left, upper, right, lower = draw.textbbox((0, 0), name, font=font)
        wide, high = right - left + 4, lower - upper + 4
        x = min(max(0.0, x1 * scale[0] - 2), max(0.0, drawn.width - wide))
        y = y1 * scale[1] - 4 - high
        y = y if y >= 0 else min(y2 * scale[1] + 4, drawn.height - high)
        draw.rectangle((x, y, x + wide, y + high), fill=_BEHIND)
        draw.text((x + 2 - left, y + 2 - upper), name, fill=BOX, font=font)
    return np.asarray(drawn)
