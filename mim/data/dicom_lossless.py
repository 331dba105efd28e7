"""JPEG lossless (ISO/IEC 10918-1, process 14) by libjpeg-turbo, several times as fast as by GDCM."""

from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

_LOSSLESS_FRAME = 0xC3
_SEGMENTS_BEFORE_FRAMES = frozenset({0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE})  # tables, APPn, comments
_END_OF_IMAGE = b"\xff\xd9"
_TAIL = 64  # bytes at the end of a codestream within which its end must be marked


def decode_lossless_jpeg(
    encoded: bytes, rows: int, columns: int, bits_allocated: int, *, signed: bool
) -> NDArray[Any] | None:
    """Decode a lossless codestream of one component.

    Args:
        encoded: The codestream, with padding after it or without.
        rows: Of the frame; a codestream of another size is not decoded, so what it claims is never allocated.
        columns: Of the frame.
        bits_allocated: Of the container; a precision that fits into another container is not decoded.
        signed: Whether the samples are to be taken as two's complement of the whole container.

    Returns:
        (rows, columns), or None for what only a more patient decoder can judge: another process, another size or
        container, and a codestream that is broken or has no end.
    """
    if bits_allocated not in (8, 16) or not _is_whole_and_lossless(encoded):
        return None
    decoded: NDArray[Any] = np.empty((rows, columns), dtype=np.uint8 if bits_allocated == 8 else np.uint16)
    try:
        imagecodecs.jpeg8_decode(encoded, out=decoded)
    except (RuntimeError, ValueError):
        return None
    return decoded.view(np.dtype(f"i{decoded.itemsize}")) if signed else decoded


def _is_whole_and_lossless(encoded: bytes) -> bool:
    # libjpeg-turbo fills up what is missing at the end without a word.
    return _frame_marker(encoded) == _LOSSLESS_FRAME and _END_OF_IMAGE in encoded[-_TAIL:]


def _frame_marker(encoded: bytes) -> int | None:
    """Return the marker of the first frame header if nothing but segments with a length stand before it."""
    position = 2
    while position + 4 <= len(encoded) and encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker not in _SEGMENTS_BEFORE_FRAMES:
            return marker
        position += 2 + int.from_bytes(encoded[position + 2 : position + 4], "big")
    return None
