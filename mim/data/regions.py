"""Parts of a film: rectangles, tiles, and where a box of the whole film lies in a part."""

from typing import NamedTuple

Box = tuple[float, float, float, float]

_KEPT_SHARE = 0.1  # a box of which less lies inside is no more than a sliver at the edge


class Rectangle(NamedTuple):
    """A part of a film in pixels; `right` and `bottom` are the first column and row outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Columns inside."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows inside."""
        return self.bottom - self.top

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of a (H, W) array that gives this part."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def whole(height: int, width: int) -> Rectangle:
    """The rectangle that holds all of a film."""
    return Rectangle(0, 0, width, height)


def tile_rectangles(area: Rectangle, side: int, overlap: int) -> list[Rectangle]:
    """Cover an area with windows of one size, row by row.

    Neighbours overlap by at least `overlap` pixels, so that whatever is no larger lies whole in some window. The last
    window of a row or column is shifted inward rather than padded. Where the area is narrower or lower than a window,
    so are the windows.

    Args:
        area: What to cover.
        side: Width and height of a window in pixels.
        overlap: In pixels, less than `side`.
    """
    return cover(area, (side, side), (overlap, overlap))


def cover(area: Rectangle, size: tuple[int, int], overlap: tuple[int, int]) -> list[Rectangle]:
    """Cover an area as `tile_rectangles` does, with windows that need not be square.

    Args:
        area: What to cover.
        size: Height and width of a window in pixels.
        overlap: By how many rows and columns neighbours overlap at least; each less than the side.
    """
    (high, wide), (over_rows, over_columns) = size, overlap
    return [
        Rectangle(left, top, min(left + wide, area.right), min(top + high, area.bottom))
        for top in _starts(area.top, area.bottom, high, over_rows)
        for left in _starts(area.left, area.right, wide, over_columns)
    ]


def map_box(box: Box, part: tuple[int, int, int, int] | None) -> Box | None:
    """Carry a box of the whole film over to a part of it.

    Args:
        box: xyxy in pixels of the whole film.
        part: Left, top, right and bottom of the part (`ManifestRow.crop`); None = the whole film, whose boxes stay as
            they are.

    Returns:
        xyxy in pixels of the part, cut at its edges; None where less than a tenth of the box's area lies inside.
    """
    if part is None:
        return box
    left, top, right, bottom = part
    x1, x2 = (min(max(value, left), right) - left for value in (box[0], box[2]))
    y1, y2 = (min(max(value, top), bottom) - top for value in (box[1], box[3]))
    area = (box[2] - box[0]) * (box[3] - box[1])
    inside = (x2 - x1) * (y2 - y1)
    return (x1, y1, x2, y2) if inside > 0 and inside >= _KEPT_SHARE * area else None


def _starts(first: int, end: int, side: int, overlap: int) -> list[int]:
    last = max(first, end - side)
    return [*range(first, last, side - overlap), last]
