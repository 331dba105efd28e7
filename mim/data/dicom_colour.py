"""The luminance of colour DICOM pictures: photographs, screens of ultrasound devices, secondary captures."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mim.data.dicom_header import Header
from mim.data.dicom_lut import LookupTable, lookup_table
from mim.data.dicom_pixels import PixelFormat
from mim.data.luminance import rec601

COLOURS = ("RGB", "YBR", "PALETTE", "HSV", "ARGB", "CMYK", "XYB")
"""How the names of colour spaces begin (PS3.3 C.7.6.3.1.2)."""

_THREE_SAMPLES = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def stored_as(photometric: str, samples: int) -> str | None:
    """Return the colour space that a decoder is told, or None where there is no way to RGB from it."""
    if photometric == "PALETTE COLOR" and samples == 1:
        return "MONOCHROME2"
    return photometric if photometric in _THREE_SAMPLES and samples == 3 else None


def luminance(decoded: NDArray[Any], header: Header, pixel_format: PixelFormat) -> NDArray[np.float32]:
    """Return the luminance of ITU-R BT.601: 0.299 red + 0.587 green + 0.114 blue.

    The grayscale stages do not apply to colour (PS3.3 C.11.1, C.11.2).

    Args:
        decoded: (H, W, 3) RGB, or (H, W) indices into the palette.
        header: Of the frame.
        pixel_format: Of the file.

    Returns:
        (H, W) in [0, 1].

    Raises:
        UnreadableRadiograph: "invalid-header": the palette is absent or broken.
    """
    if decoded.ndim == 3:
        return rec601(decoded, (1 << pixel_format.bits_stored) - 1)
    palettes = [_palette(header, colour, pixel_format.lowest) for colour in ("Red", "Green", "Blue")]
    indices, index = np.unique(decoded, return_inverse=True)
    channels = np.stack([palette(indices.astype(np.float64)) for palette in palettes], axis=-1)
    # Some declare 16 bits for entries of 8. One top for all three, or else hues would shift.
    top = 255 if max(palette.entries.max() for palette in palettes) < 256 else 65535
    return rec601(channels, top)[index.reshape(decoded.shape)]


def _palette(header: Header, colour: str, lowest: int) -> LookupTable:
    keyword = f"{colour}PaletteColorLookupTable"
    table = lookup_table(header, f"{keyword}Descriptor", f"{keyword}Data", lowest)
    if table is None:
        header.refuse(f"{keyword}Data is absent (segmented palettes are not read)")
    return table
