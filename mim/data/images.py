"""PNG, JPEG and TIFF radiographs, through Pillow."""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from mim.data.luminance import rec601
from mim.data.radiograph_types import (
    ColourPolicy,
    ImageFormat,
    Radiograph,
    RadiographMeta,
    UnreadableRadiograph,
    refuse_bomb,
    refuse_oversized,
)

_GRAY_TOLERANCE = 12
_PILLOW_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    OSError,
    SyntaxError,
    struct.error,
    zlib.error,
)
_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
_COLOUR_MODES = ("CMYK", "LAB", "HSV")
_ORIENTATION = 0x0112  # EXIF


def read_image(path: Path, kind: ImageFormat, frame: int = 0, *, color: ColourPolicy = "skip") -> Radiograph:
    """Read one page of a PNG, JPEG or TIFF file.

    - Gray saved as RGB or palette is gray: channels may differ by 12 of 255, which is JPEG noise. More is colour:
      refused, or turned into its luminance (ITU-R BT.601).
    - Alpha is dropped, without blending. The EXIF orientation is applied. White-is-zero TIFFs are turned over.
    - 1 bit is 0 or 1; up to 8 bits are divided by 255.
    - 16 bits often hold fewer. They are divided by the top of the significant bits (PNG sBIT; TIFF BitsPerSample
      below 16, or MaxSampleValue) if the file declares them and its values fit in, and otherwise by the smallest
      power of two minus one that covers the largest value: 4095 for 12-bit films, 65535 once a value exceeds 32767.
      PNG demands that writers stretch fewer bits to all 16, so values above sBIT are no error.

    Args:
        path: The file.
        kind: "png", "jpeg" or "tiff", as its first bytes say.
        frame: Zero-based page of a TIFF; other files have one.
        color: "skip" refuses colour pictures; "gray" reads their luminance.

    Raises:
        UnreadableRadiograph: With a `Reason`.
    """
    with _open(path, kind) as image:
        frames = _count(image, kind)
        if not 0 <= frame < frames:
            detail = f"frame {frame} of {frames} (the first is 0)"
            raise UnreadableRadiograph(path, "frame-out-of-range", detail)
        declared = _load(path, image, kind, frame)
        samples, bits = _gray(path, image, declared, color)
        if _is_white_zero(image):
            samples = 1 - samples
        meta = RadiographMeta(kind, None, bits, frames, None, None, None, None)
        return Radiograph(np.ascontiguousarray(samples), meta)


def count_image_frames(path: Path, kind: ImageFormat) -> int:
    """Return the number of pages of a TIFF, 1 for other files.

    Raises:
        UnreadableRadiograph: With a `Reason`.
    """
    with _open(path, kind) as image:
        return _count(image, kind)


def image_size(path: Path, kind: ImageFormat) -> tuple[int, int]:
    """Return (width, height) of the first page as `read_image` gives it, upright, from the header alone.

    Raises:
        UnreadableRadiograph: With a `Reason`.
    """
    with _open(path, kind) as image:
        width, height = image.size
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow may have turned the size, but not in all versions
            width, height = int(image.tag_v2[256]), int(image.tag_v2[257])
        lies = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)  # turned by a quarter when read
        return (height, width) if lies else (width, height)


@contextmanager
def _open(path: Path, kind: ImageFormat) -> Iterator[Image.Image]:
    """Open the header; what Pillow raises there or later on this file becomes `UnreadableRadiograph`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with path.open("rb") as file, Image.open(file, formats=[kind.upper()]) as image:
                if image.format != kind.upper():
                    raise UnreadableRadiograph(path, "not-an-image", f"{image.format} holds several pictures")
                _refuse_size(path, image)
                yield image
        except Image.DecompressionBombError:
            raise UnreadableRadiograph(path, "too-large", "more pixels than Pillow lets pass") from None
        except UnidentifiedImageError:
            cut_off = kind == "tiff" and _lacks_tiff_directory(path)
            detail = f"broken {kind.upper()} header"
            raise UnreadableRadiograph(path, "truncated" if cut_off else "undecodable", detail) from None
        except FileNotFoundError:
            raise UnreadableRadiograph(path, "missing", "no such file") from None
        except _PILLOW_ERRORS as error:
            cut_off = isinstance(error, EOFError) or "truncated" in str(error).lower()
            detail = f"{kind.upper()}: {error}"
            raise UnreadableRadiograph(path, "truncated" if cut_off else "undecodable", detail) from None


def _refuse_size(path: Path, image: Image.Image) -> None:
    refuse_oversized(path, image.height, image.width)
    refuse_bomb(path, image.height, image.width, path.stat().st_size)


def _count(image: Image.Image, kind: ImageFormat) -> int:
    # Frames of an animated PNG are no further films.
    return int(getattr(image, "n_frames", 1)) if kind == "tiff" else 1


def _load(path: Path, image: Image.Image, kind: ImageFormat, frame: int) -> int | None:
    """Decode a page in place, upright, and return the significant bits that the file declares."""
    if frame:
        image.seek(frame)
        _refuse_size(path, image)
    declared = None
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_tiff_strips(path, image)
        declared = _tiff_significant_bits(image)
    elif kind == "png":
        with path.open("rb") as file:
            declared = _png_significant_bits(file)
    narrowed = ";16" in repr(getattr(image, "tile", [])) and image.mode not in (*_SIXTEEN_BIT_MODES, "I")
    image.load()
    if narrowed:
        _refuse_colour(path, _spread(np.asarray(image.convert("RGB"))))
        raise UnreadableRadiograph(path, "undecodable", "16 bits in several channels: save it as 16-bit gray")
    ImageOps.exif_transpose(image, in_place=True)
    return declared


def _gray(path: Path, image: Image.Image, declared: int | None, color: ColourPolicy) -> tuple[NDArray[np.float32], int]:
    """Return the pixels (H, W) in [0, 1] and the bits that they are taken to have."""
    if image.mode in _SIXTEEN_BIT_MODES or (image.mode == "I" and image.format == "PNG"):
        return _scale_sixteen_bits(np.asarray(image), declared)
    if image.mode in ("I", "F"):
        raise UnreadableRadiograph(path, "unsupported-object", "signed, 32-bit or floating-point samples")
    if image.mode in _COLOUR_MODES and (color == "skip" or image.mode == "LAB"):
        raise UnreadableRadiograph(path, "colour", f"{image.mode} channels")
    if image.mode == "1":
        return np.asarray(image).astype(np.float32), 1
    if image.mode in ("L", "LA", "La"):
        gray = np.asarray(image if image.mode == "L" else image.getchannel(0))
        return gray.astype(np.float32) / np.float32(255), 8
    channels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    spread = _spread(channels)
    if spread > _GRAY_TOLERANCE and color == "gray":
        return rec601(channels, 255), 8
    _refuse_colour(path, spread)
    sums = sum(plane.astype(np.uint16) for plane in cv2.split(channels))
    return np.asarray(sums, dtype=np.float32) / np.float32(3 * 255), 8


def _spread(channels: NDArray[np.uint8]) -> int:
    """Return by how much the channels of (H, W, 3) differ at most in a pixel."""
    red, green, blue = cv2.split(channels)
    highest, lowest = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    return int(cv2.subtract(highest, lowest).max())


def _refuse_colour(path: Path, spread: int) -> None:
    """Refuse channels that differ by more than JPEG noise."""
    if spread > _GRAY_TOLERANCE:
        raise UnreadableRadiograph(path, "colour", f"channels differ by {spread} of 255")


def _scale_sixteen_bits(samples: NDArray[Any], declared: int | None) -> tuple[NDArray[np.float32], int]:
    largest = int(samples.max())
    fits = declared is not None and largest < 1 << declared
    bits = declared if declared is not None and fits else max(1, largest.bit_length())
    return samples.astype(np.float32) / np.float32((1 << bits) - 1), bits


def _png_significant_bits(file: BinaryIO) -> int | None:
    """Return the first value of the sBIT chunk (PNG specification, 11.3.2.7), which stands before the pixels."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">L4s", head)
        if name == b"sBIT":
            bits = file.read(1)
            return bits[0] if bits and 1 <= bits[0] <= 16 else None
        if name == b"IDAT":
            return None
        file.seek(length + 4, 1)
    return None


def _tiff_significant_bits(image: TiffImagePlugin.TiffImageFile) -> int | None:
    bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))
    if bits[0] < 16:
        return int(bits[0])
    largest = image.tag_v2.get(281)  # MaxSampleValue
    value = largest[0] if isinstance(largest, tuple) else largest
    return int(value).bit_length() if value is not None and 0 < value < 1 << 16 else None


def _lacks_tiff_directory(path: Path) -> bool:
    """Whether the file ends before its first directory, which many writers put behind the pixels."""
    with path.open("rb") as file:
        head = file.read(16)
    order = "<" if head.startswith(b"II") else ">"
    layout = f"{order}8xQ" if b"+" in head[2:4] else f"{order}4xL"
    return len(head) < 16 or struct.unpack_from(layout, head)[0] >= path.stat().st_size


def _check_tiff_strips(path: Path, image: TiffImagePlugin.TiffImageFile) -> None:
    """Refuse a file that ends before its strips or tiles do, which LibTIFF reports as any other broken data."""
    size = path.stat().st_size
    for offsets, counts in ((273, 279), (324, 325)):  # StripOffsets, TileOffsets and their byte counts
        pairs = zip(image.tag_v2.get(offsets, ()), image.tag_v2.get(counts, ()), strict=False)
        if any(offset + count > size for offset, count in pairs):
            raise UnreadableRadiograph(path, "truncated", "the file ends before its pixels do")


def _is_white_zero(image: Image.Image) -> bool:
    """Whether 0 means white and Pillow has left it so, as it does with 16 bits."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.mode not in _SIXTEEN_BIT_MODES:
        return False
    return bool(image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0)
