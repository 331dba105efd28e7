"""Films with what was hidden drawn over them, and sheets of reconstructions."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mim.errors import MimError

Bytes = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.float32]
Cells = npt.NDArray[np.bool_]

OUTLINE = (110, 205, 255)  # around hidden cells
HATCH = (110, 205, 255)
BOX = (255, 213, 0)
MARK = (255, 64, 200)
UNSEEN = (58, 72, 94)  # a hue that no film has: hidden is not dark
FOR = (255, 140, 0)
AGAINST = (40, 110, 255)
TINT = 0.65  # of the strongest cell
DARKENED = 0.42
HATCH_STRENGTH = 0.38
HATCH_SPACING = 9.0  # pixels of the picture, across the lines


@dataclass(frozen=True, eq=False)
class Case:
    """One film of the test set to be shown.

    Attributes:
        image_id: Its name in the predictions.
        patient_id: Salted hash of its patient.
        label: 1 = positive.
        score: Probability of the positive class.
        image: (H, W) in [0, 1].
        visible: (gh, gw), True = seen; None = everything was seen.
        boxes: Lesions, xyxy in pixels of `image`.
        explanation: (gh, gw): above 0 speaks for a positive answer, below 0 against it, NaN = not seen; None = none.
        explained_by: What gave it, and what its colours mean, in words.
    """

    image_id: str
    patient_id: str
    label: int
    score: float
    image: Pixels
    visible: Cells | None = None
    boxes: Sequence[Sequence[float]] = field(default_factory=tuple)
    explanation: npt.NDArray[np.float64] | None = None
    explained_by: str = ""


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A film, what the network saw of it, and what it made of that.

    Attributes:
        image: (H, W) in [0, 1].
        visible: (gh, gw), True = seen.
        rebuilt: (H, W); values outside [0, 1] are drawn as the nearest of them.
    """

    image: Pixels
    visible: Cells
    rebuilt: Pixels


def film_picture(image: npt.ArrayLike, *, side: int = 512) -> Bytes:
    """Draw a film as it is, its longer side `side` pixels.

    Args:
        image: (H, W), clipped to [0, 1].
        side: Longer side of the picture in pixels.

    Returns:
        (h, w) uint8.

    Raises:
        MimError: Not two-dimensional, empty, or with pixels that are not finite.
    """
    pixels = np.asarray(image, dtype=np.float32)
    if pixels.ndim != 2 or not pixels.size:
        raise MimError(f"picture: an image of shape {pixels.shape} was given; expected (H, W)")
    if not np.isfinite(pixels).all():
        raise MimError("picture: an image holds pixels that are not finite numbers; look for a diverged training")
    height, width = _fit(pixels.shape[0], pixels.shape[1], side)
    film = Image.fromarray(np.clip(pixels, 0, 1))
    shrinks = height < pixels.shape[0]
    film = film.resize((width, height), Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC)
    bright: Bytes = np.rint(np.clip(np.asarray(film), 0, 1) * 255).astype(np.uint8)
    return bright


def mask_picture(
    image: npt.ArrayLike,
    visible: npt.ArrayLike | None,
    boxes: Sequence[Sequence[float]] = (),
    *,
    side: int = 512,
    opaque: bool = False,
    marks: Sequence[Sequence[float]] = (),
) -> Bytes:
    """Draw a film with hidden cells darkened, hatched and outlined, and boxes framed.

    Args:
        image: (H, W), clipped to [0, 1].
        visible: (gh, gw), True = seen; None = everything was seen.
        boxes: xyxy in pixels of `image`.
        side: Longer side of the picture in pixels.
        opaque: Cover hidden cells instead, so that only what was seen is left.
        marks: Further boxes, framed in another colour.

    Returns:
        (h, w, 3) uint8.

    Raises:
        MimError: An image as in `film_picture`, a mask that is not two-dimensional, a box that is not four numbers.
    """
    grey = film_picture(image, side=side)
    picture = np.repeat(grey[:, :, None], 3, axis=2).astype(np.float32)  # (h, w, 3)
    if visible is not None:
        hidden = enlarge(~_cells(visible), grey.shape)
        if opaque:
            picture[hidden] = UNSEEN
        else:
            picture[hidden] *= DARKENED
            strength = (hatching(grey.shape) * HATCH_STRENGTH * hidden)[:, :, None]
            picture += strength * (np.array(HATCH, dtype=np.float32) - picture)
            picture[border_of(hidden)] = OUTLINE
    drawn = Image.fromarray(np.rint(picture).astype(np.uint8))
    height, width = np.shape(image)
    _frame(drawn, marks, grey.shape[1] / width, grey.shape[0] / height, MARK)
    _frame(drawn, boxes, grey.shape[1] / width, grey.shape[0] / height)
    return np.asarray(drawn)


def explanation_picture(
    image: npt.ArrayLike, scores: npt.ArrayLike, boxes: Sequence[Sequence[float]] = (), *, side: int = 512
) -> Bytes:
    """Draw a film with the cells tinted by what they do for an answer, and boxes framed.

    Args:
        image: (H, W), clipped to [0, 1].
        scores: (gh, gw): above 0 speaks for the answer and is tinted orange, below 0 against it and is tinted blue,
            the stronger the further from 0; NaN = not seen by the network, and hatched.
        boxes: xyxy in pixels of `image`.
        side: Longer side of the picture in pixels.

    Returns:
        (h, w, 3) uint8.

    Raises:
        MimError: As `mask_picture`.
    """
    values = np.asarray(scores, dtype=np.float64)
    seen = _cells(np.isfinite(values))
    picture = mask_picture(image, seen, side=side).astype(np.float32)
    largest = float(np.abs(values[seen]).max()) if seen.any() else 0.0
    strength = np.nan_to_num(values) / (largest or 1.0)  # (gh, gw) in [-1, 1]
    height, width = np.shape(image)
    spread = enlarge(strength, picture.shape[:2])[:, :, None]
    tint = np.where(spread > 0, np.array(FOR, dtype=np.float32), np.array(AGAINST, dtype=np.float32))
    picture += TINT * np.abs(spread) * (tint - picture)
    drawn = Image.fromarray(np.rint(picture).astype(np.uint8))
    _frame(drawn, boxes, picture.shape[1] / width, picture.shape[0] / height)
    return np.asarray(drawn)


def png(picture: Bytes) -> bytes:
    """Encode (h, w) or (h, w, 3) uint8 as PNG."""
    return _encode(Image.fromarray(picture))


def reconstruction_picture(reconstructions: Sequence[Reconstruction], *, side: int = 256) -> bytes:
    """Draw a sheet of three columns, input, visible and rebuilt, one row a film.

    Args:
        reconstructions: The rows.
        side: Longer side of each film in pixels.

    Returns:
        A PNG file.

    Raises:
        MimError: No rows, or an image as in `film_picture`.
    """
    if not reconstructions:
        raise MimError("picture of reconstructions: no films were given; give at least one")
    rows = [
        (
            mask_picture(row.image, None, side=side),
            mask_picture(row.image, row.visible, side=side, opaque=True),
            mask_picture(row.rebuilt, None, side=side),
        )
        for row in reconstructions
    ]
    gap, head, foot = max(6, side // 32), max(22, side // 8), max(18, side // 11)
    column = max(tile.shape[1] for tiles in rows for tile in tiles)
    heights = [max(tile.shape[0] for tile in tiles) for tiles in rows]
    total = (3 * column + 4 * gap, head + sum(heights) + len(rows) * (foot + gap))
    sheet = Image.new("RGB", total, "white")
    draw = ImageDraw.Draw(sheet)
    centres = [gap + column // 2 + number * (column + gap) for number in range(3)]
    for centre, title in zip(centres, ("input", "visible", "rebuilt"), strict=True):
        draw.text((centre, head // 2), title, fill=(20, 26, 34), font=load_font(head * 0.55), anchor="mm")
    top = head
    for row, tiles, height in zip(reconstructions, rows, heights, strict=True):
        for centre, tile in zip(centres, tiles, strict=True):
            sheet.paste(Image.fromarray(tile), (centre - tile.shape[1] // 2, top + (height - tile.shape[0]) // 2))
        seen = f"{_cells(row.visible).mean() * 100:.0f} % of the cells seen"
        draw.text(
            (centres[1], top + height + foot // 2), seen, fill=(70, 80, 92), font=load_font(foot * 0.6), anchor="mm"
        )
        top += height + foot + gap
    return _encode(sheet)


def _cells(visible: npt.ArrayLike) -> Cells:
    cells = np.asarray(visible, dtype=bool)
    if cells.ndim != 2 or not cells.size:
        raise MimError(f"picture: a mask of shape {cells.shape} was given; expected (gh, gw)")
    return cells


def _fit(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width with the same aspect ratio and the longer side `side`."""
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def enlarge(cells: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Give each of (h, w) pixels the value of the cell its middle falls into."""
    rows, columns = (
        np.floor((np.arange(pixels) + 0.5) * count / pixels).astype(np.intp)
        for pixels, count in zip(shape, cells.shape, strict=True)
    )
    spread: npt.NDArray[Any] = cells[rows[:, None], columns[None, :]]
    return spread


def hatching(shape: tuple[int, ...]) -> Pixels:
    """Strength in [0, 1] of diagonal lines, soft at their edges."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    across = ((rows + columns) / np.sqrt(2)) % HATCH_SPACING
    strength: Pixels = np.clip(1.5 - np.abs(across - HATCH_SPACING / 2), 0, 1).astype(np.float32)
    return strength


def border_of(hidden: Cells) -> Cells:
    """Pixels of hidden cells, two deep, next to a visible one."""
    around = np.pad(hidden, 2, mode="edge")
    height, width = hidden.shape
    near_visible = np.zeros_like(hidden)
    for down in range(5):
        for right in range(5):
            near_visible |= ~around[down : down + height, right : right + width]
    return hidden & near_visible


def framed(box: Sequence[float], across: float, down: float) -> tuple[float, float, float, float]:
    """Scale a box xyxy to the picture, corners in order.

    Raises:
        MimError: It is not four numbers.
    """
    if len(box) != 4 or not np.isfinite(np.asarray(box, dtype=np.float64)).all():
        raise MimError(f"picture: box {list(box)} must be four numbers x1, y1, x2, y2")
    left, right = sorted((float(box[0]) * across, float(box[2]) * across))
    upper, lower = sorted((float(box[1]) * down, float(box[3]) * down))
    return left, upper, right, lower


def _frame(
    picture: Image.Image,
    boxes: Sequence[Sequence[float]],
    across: float,
    down: float,
    colour: tuple[int, int, int] = BOX,
) -> None:
    draw = ImageDraw.Draw(picture)
    for box in boxes:
        left, upper, right, lower = framed(box, across, down)
        corners = [round(value) for value in (left - 3, upper - 3, right + 2, lower + 2)]
        draw.rectangle(corners, outline=colour, width=3)  # outside the box, so that no lesion is covered


def load_font(size: float) -> ImageFont.FreeTypeFont:
    """Load the font that matplotlib brings, the same on every machine."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", round(size))


def _encode(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()
