"""What a reader returns, and the one exception it raises."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mim.errors import MimError

ImageFormat = Literal["dicom", "png", "jpeg", "tiff", "nifti"]

ColourPolicy = Literal["skip", "gray"]
"""What is done with a colour picture: refuse it, or read its luminance."""

Reason = Literal[
    "missing",  # no such file, or it cannot be opened
    "empty",  # zero bytes
    "not-an-image",  # the content is neither DICOM nor PNG, JPEG, TIFF or NIfTI
    "unsupported-object",  # no radiograph (report, plan, segmentation, map, volume), or samples of an unfit type
    "colour",  # RGB, YBR, palette or another colour image, where `color` says to skip it or it cannot be converted
    "too-large",  # more pixels than MAX_PIXELS, or a decompression bomb; refused before they are allocated
    "frame-out-of-range",  # the file holds fewer frames than asked for
    "invalid-header",  # a field that decides how the picture looks is absent, of a wrong type or contradicts others
    "truncated",  # the file ends before its pixels do
    "undecodable",  # the pixels are broken, or stored in a way that no installed decoder knows
]

MAX_PIXELS = 200_000_000
"""The largest frame (rows x columns) that is read; anything above is refused before its pixels are allocated."""

_BOMB_PIXELS = 1 << 24  # fewer do no harm
_BOMB_PIXELS_PER_BYTE = 1000
_DETAIL_LENGTH = 160


@dataclass(frozen=True)
class RadiographMeta:
    """What leaves a file beside its pixels; nothing else of a header does.

    Attributes:
        format: Kind of file, decided by its content.
        modality: DICOM Modality (0008,0060), such as IO, PX or DX; None where absent.
        bits: Bits stored per pixel, before the display stages.
        frames: Frames in the file.
        spacing_mm: Distance of pixel centres in mm as (between rows, between columns), for the pixels returned.
        patient_id: Patient ID as in the header, raw. Only the manifest writer may see it, which hashes it.
        study_id: Study Instance UID as in the header, raw. To be hashed as well.
        series_order: Instance Number (0020,0013): the place of the image in its series.
        burned_in: Burned In Annotation (0028,0301): whether the pixels show text that could tell who it is; None where
            the file does not say.
    """

    format: ImageFormat
    modality: str | None
    bits: int
    frames: int
    spacing_mm: tuple[float, float] | None
    patient_id: str | None
    study_id: str | None
    series_order: int | None
    burned_in: bool | None = None


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One frame as it is meant to be shown.

    Attributes:
        pixels: (H, W) float32 in [0, 1]; 0 is black (air, little absorption), 1 is bright.
        meta: What the file says about the frame.
    """

    pixels: NDArray[np.float32]
    meta: RadiographMeta


class UnreadableRadiograph(MimError):  # noqa: N818  (a verdict on a file, listed and counted)
    """A file that cannot, or will not, be read.

    Attributes:
        path: The file.
        reason: A fixed category, see `Reason`.
        detail: One short line on what was found. It never quotes a value of the header that may name a patient.
    """

    def __init__(self, path: Path, reason: Reason, detail: str) -> None:
        self.path = path
        self.reason: Reason = reason
        self.detail = one_line(detail)
        super().__init__(f"{one_line(path.name)}: {reason}: {self.detail}")

    def __reduce__(self) -> tuple[type["UnreadableRadiograph"], tuple[Path, Reason, str]]:
        return type(self), (self.path, self.reason, self.detail)


def one_line(text: str) -> str:
    """Return `text` without line breaks and control characters, cut to a length fit for a report."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= _DETAIL_LENGTH else flat[: _DETAIL_LENGTH - 1] + "…"


def refuse_oversized(path: Path, rows: int, columns: int) -> None:
    """Refuse a frame above `MAX_PIXELS`, to be called before its pixels are allocated.

    Raises:
        UnreadableRadiograph: "too-large".
    """
    if rows * columns > MAX_PIXELS:
        raise UnreadableRadiograph(path, "too-large", f"{rows} x {columns} pixels exceed {MAX_PIXELS:,}")


def refuse_bomb(path: Path, rows: int, columns: int, encoded: int) -> None:
    """Refuse a frame that claims far more pixels than its bytes can tell of, before its pixels are allocated.

    Only frames above 16 million pixels are judged. A film has noise, and takes a tenth of a bit a pixel at the very
    least; less than a hundredth of a bit is what a decompression bomb takes.

    Args:
        path: The file.
        rows: Of the frame, as its header says.
        columns: Likewise.
        encoded: Bytes of the compressed frame, or of the file.

    Raises:
        UnreadableRadiograph: "too-large".
    """
    if rows * columns > max(_BOMB_PIXELS, _BOMB_PIXELS_PER_BYTE * encoded):
        raise UnreadableRadiograph(path, "too-large", f"{rows} x {columns} pixels in {encoded:,} bytes")
