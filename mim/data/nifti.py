"""Radiographs in NIfTI files, the format of MONAI and nnU-Net.

nibabel, which is MONAI's own reader, reads the header. MONAI's wrapper of it is not used, since it would bring torch
into every process that decodes; nor is nibabel's image class, which reads and allocates what a header claims.
"""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mim.data.luminance import rec601
from mim.data.radiograph_types import (
    ColourPolicy,
    Radiograph,
    RadiographMeta,
    Reason,
    UnreadableRadiograph,
    refuse_oversized,
)
from mim.data.square_pixels import make_square

_GZIP = b"\x1f\x8b"
_LONGEST_HEADER = 540
_MAGIC = {348: (344, b"n+1\0"), 540: (4, b"n+2\0")}
_LARGEST_OFFSET = 1 << 24  # header extensions end there at the latest
_DEFLATE_RATIO = 1032  # zlib documents it as the highest
_TRAILER = 1 << 16
_WIDEST_ASPECT = 10.0
_PERCENTILES = (0.005, 0.995)
_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}  # codes of metre, millimetre and micrometre


@dataclass(frozen=True)
class _Layout:
    """What a checked header says."""

    rows: int
    columns: int
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    display: tuple[float, float] | None
    spacing: tuple[float, float] | None
    aspect: float

    @property
    def bytes_needed(self) -> int:
        return self.offset + self.rows * self.columns * self.dtype.itemsize


def looks_like_nifti(head: bytes) -> bool:
    """Whether the first 1024 bytes are those of a NIfTI-1 or NIfTI-2 in one file, compressed with gzip or not."""
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, _LONGEST_HEADER)
        except zlib.error:
            return False
    return _version(head) is not None


def read_nifti(path: Path, frame: int = 0, *, color: ColourPolicy = "skip") -> Radiograph:
    """Read a NIfTI file that holds one film: all dimensions after the second are 1.

    - The first dimension runs along a row from left to right, the second down the rows, as SimpleITK, MONAI and
      nnU-Net write films. The affine is not applied: writers of films leave it at the identity, which says nothing.
    - Slope and intercept (scl_slope, scl_inter) are applied. Black and white are the display range (cal_min, cal_max)
      if there is one. Otherwise, integers without negative values are taken to have the fewest bits that hold the
      largest, at least 8, and fill their range; of any other the 0.5 and 99.5 percentiles are black and white.
    - Pixels that are not square are made so, as in DICOM.

    Args:
        path: The file, compressed with gzip or not.
        frame: 0.
        color: "skip" refuses colour pictures; "gray" reads their luminance.

    Raises:
        UnreadableRadiograph: With a `Reason`; "unsupported-object" for volumes and series.
    """
    if frame != 0:
        raise UnreadableRadiograph(path, "frame-out-of-range", f"frame {frame} of 1 (the first is 0)")
    layout = _layout(path, color)
    content = _content(path, layout)
    stored = np.frombuffer(content, dtype=layout.dtype, offset=layout.offset, count=layout.rows * layout.columns)
    shown, bits = _render(path, stored.reshape(layout.rows, layout.columns), layout)
    shown, spacing = make_square(path, shown, layout.spacing, layout.aspect)
    return Radiograph(shown, RadiographMeta("nifti", None, bits, 1, spacing, None, None, None))


def count_nifti_frames(path: Path, *, color: ColourPolicy = "skip") -> int:
    """Return 1, the number of films in a file that can be read.

    Raises:
        UnreadableRadiograph: With a `Reason`, where the header shows that it cannot.
    """
    _layout(path, color)
    return 1


def _version(head: bytes) -> int | None:
    """Return the length of the header, which tells the version, or None for what is no NIfTI in one file."""
    for order in "<>":
        length = struct.unpack(f"{order}i", head[:4])[0] if len(head) >= 4 else 0
        if length in _MAGIC and len(head) >= length:
            place, magic = _MAGIC[length]
            return int(length) if head[place : place + 4] == magic else None
    return None


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP
    return gzip.open(path, "rb") if compressed else path.open("rb")  # type: ignore[return-value]


def _read(path: Path, count: int) -> bytes:
    """Return the first `count` bytes, or all there are."""
    try:
        with _open(path) as file:
            content = file.read(count)
            file.read(_TRAILER)  # at the end of the file, gzip compares its checksum
            return content
    except EOFError:
        raise UnreadableRadiograph(path, "truncated", "the compressed file ends early") from None
    except (zlib.error, gzip.BadGzipFile):
        raise UnreadableRadiograph(path, "undecodable", "the compression is broken") from None
    except OSError as error:
        raise UnreadableRadiograph(path, "missing", error.strerror or "cannot be opened") from None


def _content(path: Path, layout: _Layout) -> bytes:
    """Return the file up to the end of its pixels; one that cannot hold them is refused before they are allocated."""
    size = path.stat().st_size
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP
    if layout.bytes_needed > size * (_DEFLATE_RATIO if compressed else 1):
        raise UnreadableRadiograph(path, "truncated", f"{size} bytes cannot hold {layout.bytes_needed}")
    content = _read(path, layout.bytes_needed)
    if len(content) < layout.bytes_needed:
        raise UnreadableRadiograph(path, "truncated", f"{len(content)} of {layout.bytes_needed} bytes")
    return content


def _layout(path: Path, color: ColourPolicy) -> _Layout:
    from nibabel.nifti1 import Nifti1Header  # half a second that readers of other files need not wait
    from nibabel.nifti2 import Nifti2Header
    from nibabel.spatialimages import HeaderDataError

    head = _read(path, _LONGEST_HEADER)
    version = _version(head)
    if version is None:
        raise UnreadableRadiograph(path, "not-an-image", "no NIfTI header")
    try:
        header = (Nifti1Header if version == 348 else Nifti2Header)(head[:version], check=False)
        return _checked(path, header, color)
    except (HeaderDataError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        detail = f"the header cannot be read ({type(error).__name__})"
        raise UnreadableRadiograph(path, "invalid-header", detail) from None


def _checked(path: Path, header: Any, color: ColourPolicy) -> _Layout:
    """Return what a nibabel header says, or refuse it."""
    sizes = [int(size) for size in header["dim"]]
    if not 2 <= sizes[0] <= 7 or min(sizes[1 : sizes[0] + 1]) < 1:
        _refuse(path, "invalid-header", f"dimensions {sizes}")
    columns, rows, *others = sizes[1 : sizes[0] + 1]
    if math.prod(others) != 1:
        _refuse(path, "unsupported-object", f"a volume or series of {' x '.join(map(str, (columns, rows, *others)))}")
    refuse_oversized(path, rows, columns)
    dtype = header.get_data_dtype()
    if dtype.fields and color == "skip":
        _refuse(path, "colour", f"{len(dtype.fields)} samples a pixel")
    if not dtype.fields and (dtype.kind not in "uif" or dtype.itemsize > 8):
        _refuse(path, "unsupported-object", f"samples of type {dtype.name}")
    offset = float(header["vox_offset"])
    if not (math.isfinite(offset) and header.sizeof_hdr <= offset <= _LARGEST_OFFSET):
        _refuse(path, "invalid-header", "the pixels begin at an impossible place")
    slope, intercept = header.get_slope_inter()
    low, high = float(header["cal_min"]), float(header["cal_max"])
    display = (low, high) if math.isfinite(low) and math.isfinite(high) and high > low else None
    spacing, aspect = _spacing(path, header)
    scale = (1.0 if slope is None else slope, intercept or 0.0)
    return _Layout(rows, columns, dtype, int(offset), *scale, display, spacing, aspect)


def _spacing(path: Path, header: Any) -> tuple[tuple[float, float] | None, float]:
    """Return the spacing in mm (between rows, between columns), if the header names its unit, and their ratio."""
    between_columns, between_rows = (abs(float(size)) for size in header["pixdim"][1:3])
    if not (math.isfinite(between_columns) and math.isfinite(between_rows) and between_columns and between_rows):
        return None, 1.0
    aspect = between_rows / between_columns
    if not 1 / _WIDEST_ASPECT <= aspect <= _WIDEST_ASPECT:
        _refuse(path, "invalid-header", f"pixels with an aspect ratio of {aspect:.3g}")
    unit = _MILLIMETRES.get(int(header["xyzt_units"]) & 7)
    return (None if unit is None else (between_rows * unit, between_columns * unit)), aspect


def _refuse(path: Path, reason: Reason, detail: str) -> None:
    raise UnreadableRadiograph(path, reason, detail)


def _render(path: Path, stored: NDArray[Any], layout: _Layout) -> tuple[NDArray[np.float32], int]:
    """Return the pixels in [0, 1], and their bits."""
    if stored.dtype.fields:
        channels = np.stack([stored[name] for name in ("R", "G", "B")], axis=-1)
        return rec601(channels, 255), 8
    bits = 8 * stored.dtype.itemsize
    used = stored[np.isfinite(stored)] if stored.dtype.kind == "f" else stored
    if stored.dtype.kind in "ui" and int(stored.min()) >= 0:
        bits = max(8, int(stored.max()).bit_length())
        ends = (0.0, float((1 << bits) - 1))
    else:
        ends = _robust_ends(used)
    low, high = layout.display or sorted(end * layout.slope + layout.intercept for end in ends)
    if not math.isfinite(high - low):
        _refuse(path, "invalid-header", "slope and intercept overflow")
    with np.errstate(all="ignore"):
        values = stored.astype(np.float64) * layout.slope + layout.intercept
        shown = np.clip((values - low) / (high - low or 1.0), 0, 1)
    return np.nan_to_num(shown, nan=0.0).astype(np.float32), bits


def _robust_ends(values: NDArray[Any]) -> tuple[float, float]:
    """Return the percentiles (nearest rank), or the smallest and largest value where these coincide."""
    if values.size == 0:
        return 0.0, 0.0
    low, high = np.quantile(values, _PERCENTILES, method="inverted_cdf")
    return (float(low), float(high)) if low < high else (float(values.min()), float(values.max()))
