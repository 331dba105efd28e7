"""Pictures inside a page, so that it asks nobody for anything."""

import base64

from mim.evaluation.pictures import Bytes, png
from mim.evaluation.section import Picture


def embed(pixels: Bytes, alt: str, caption: str = "") -> Picture:
    """Make a picture of the page.

    Args:
        pixels: (h, w) or (h, w, 3) uint8.
        alt: What a screen reader says in its place.
        caption: What is said below it.
    """
    return Picture(data_uri(png(pixels)), alt, pixels.shape[1], pixels.shape[0], caption)


def data_uri(content: bytes) -> str:
    """The content of a PNG file as an address."""
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
