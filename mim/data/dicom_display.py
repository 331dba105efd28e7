"""From stored values to display values in [0, 1]."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mim.data.dicom_header import Header
from mim.data.dicom_lut import Values, modality_stage, voi_stage
from mim.data.dicom_pixels import PixelFormat

_TABLE_BITS = 16
_PERCENTILES = (0.005, 0.995)
_UNBOUNDED_MODALITIES = ("CT", "MR", "NM", "PT")


def render(stored: NDArray[Any], header: Header, pixel_format: PixelFormat, voi: int = 0) -> NDArray[np.float32]:
    """Take stored values through modality stage, VOI stage and MONOCHROME1, which come last to first as one table.

    Without a VOI LUT or window, black and white are the ends of the range that the stored bits have after the
    modality stage. Two kinds of images have no meaningful ends there: those FOR PROCESSING (0008,0068), and CT, MR,
    NM and PT. Theirs are the 0.5 and 99.5 percentiles of the pixels that are not padding, or, where these coincide,
    the smallest and largest of them.

    Pixel Padding Value, up to Pixel Padding Range Limit, becomes 0 (PS3.3 C.7.5.1.1.2).

    Args:
        stored: (H, W) integers.
        header: Of the frame.
        pixel_format: Of the file.
        voi: Which of several VOI LUTs and windows, see `mim.data.dicom_lut.voi_stage`.

    Returns:
        (H, W) in [0, 1].

    Raises:
        UnreadableRadiograph: "invalid-header".
    """
    values: NDArray[Any]
    if pixel_format.bits_stored <= _TABLE_BITS:
        values = np.arange(pixel_format.lowest, pixel_format.highest + 1)
        codes, index = _codes(stored, pixel_format)
    else:
        values, codes = np.unique(stored, return_inverse=True)
        index = np.arange(len(values))
    with np.errstate(all="ignore"):
        table = _table(values, codes, index, header, pixel_format, voi)
    if not np.isfinite(table).all():
        header.refuse("the grayscale stages overflow")
    return _look_up(table[index], codes.reshape(stored.shape))


def _codes(stored: NDArray[Any], pixel_format: PixelFormat) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the bits of the pixels, unsigned, and for each of the 256 or 65536 codes the place of its stored value.

    Lossy codecs can overshoot the stored bits; such codes take the place of the nearest value.
    """
    lowest, highest = pixel_format.lowest, pixel_format.highest
    if stored.itemsize > 2:
        narrow = np.int16 if pixel_format.signed else np.uint16
        stored = np.clip(stored.astype(np.int32), lowest, highest).astype(narrow)
    unsigned = np.dtype(f"u{stored.itemsize}")
    every = np.arange(1 << 8 * stored.itemsize).astype(unsigned).view(stored.dtype).astype(np.int32)
    return stored.view(unsigned), np.clip(every, lowest, highest) - lowest


def _look_up(table: NDArray[np.float32], codes: NDArray[Any]) -> NDArray[np.float32]:
    # OpenCV looks up 8 and 16 bits, several times as fast as NumPy's indexing.
    shown: NDArray[np.float32] = cv2.LUT(codes, table) if codes.itemsize <= 2 else table[codes]
    return shown


def _table(
    values: NDArray[Any],
    codes: NDArray[Any],
    index: NDArray[Any],
    header: Header,
    pixel_format: PixelFormat,
    choice: int,
) -> NDArray[np.float32]:
    """Return the display value of each of `values` (N,), of which the image holds `values[index[codes]]`."""
    modality = modality_stage(header, pixel_format.lowest)
    lowest, highest = modality.output_range(pixel_format.lowest, pixel_format.highest)
    padding = _padding(values, header, pixel_format)
    inputs = modality(values.astype(np.float64))
    voi = voi_stage(header, lowest, choice)
    if voi is not None:
        shown = voi(inputs)
    else:
        if _has_no_ends(header):
            counts = np.zeros(len(values), dtype=np.int64)
            np.add.at(counts, index, np.bincount(codes.ravel(), minlength=len(index)))
            lowest, highest = _robust_ends(inputs[~padding], counts[~padding])
        shown = np.clip((inputs - lowest) / (highest - lowest or 1.0), 0, 1)
    if header.text("PhotometricInterpretation") == "MONOCHROME1":
        shown = 1 - shown
    shown[padding] = 0
    return shown.astype(np.float32)


def _has_no_ends(header: Header) -> bool:
    for_processing = header.text("PresentationIntentType") == "FOR PROCESSING"
    return for_processing or header.text("Modality") in _UNBOUNDED_MODALITIES


def _padding(values: NDArray[Any], header: Header, pixel_format: PixelFormat) -> NDArray[np.bool_]:
    """Return which of the stored values are padding."""
    first = _stored_value("PixelPaddingValue", header, pixel_format)
    if first is None:
        return np.zeros(len(values), dtype=np.bool_)
    last = _stored_value("PixelPaddingRangeLimit", header, pixel_format)
    last = first if last is None else last
    return (values >= min(first, last)) & (values <= max(first, last))


def _stored_value(keyword: str, header: Header, pixel_format: PixelFormat) -> int | None:
    """Return a field that holds a stored value, with the sign of stored values whatever it is written in."""
    words = header.words(keyword)
    if len(words) == 0:
        return None
    return int(words[0].astype(np.int16)) if pixel_format.signed else int(words[0])


def _robust_ends(values: Values, counts: NDArray[Any]) -> tuple[float, float]:
    """Return the percentiles (nearest rank) of `values` that occur `counts` times."""
    present = counts > 0
    values, counts = values[present], counts[present]
    if len(values) == 0:
        return 0.0, 0.0
    order = np.argsort(values, kind="stable")
    values, ranks = values[order], np.cumsum(counts[order])
    low, high = values[np.searchsorted(ranks, np.multiply(_PERCENTILES, ranks[-1]))]
    return (float(low), float(high)) if low < high else (float(values[0]), float(values[-1]))
