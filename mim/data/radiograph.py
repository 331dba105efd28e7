"""The door to image files: any radiograph in, float32 in [0, 1] out."""

from pathlib import Path
from typing import get_args

from mim.data.dicom import count_dicom_frames, dicom_size, read_dicom
from mim.data.dicom_file import looks_like_dicom
from mim.data.images import count_image_frames, image_size, read_image
from mim.data.nifti import count_nifti_frames, looks_like_nifti, read_nifti
from mim.data.radiograph_types import (
    MAX_PIXELS,
    ColourPolicy,
    ImageFormat,
    Radiograph,
    RadiographMeta,
    Reason,
    UnreadableRadiograph,
)

__all__ = [
    "MAX_PIXELS",
    "ColourPolicy",
    "ImageFormat",
    "Radiograph",
    "RadiographMeta",
    "Reason",
    "UnreadableRadiograph",
    "count_frames",
    "file_format",
    "read_radiograph",
    "read_size",
]

_SIGNATURES: tuple[tuple[bytes, ImageFormat], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
)
_HEAD_LENGTH = 1024


def read_radiograph(path: Path | str, frame: int = 0, *, voi: int = 0, color: ColourPolicy = "skip") -> Radiograph:
    """Read one frame of a DICOM, PNG, JPEG, TIFF or NIfTI file as it is meant to be shown.

    See `mim.data.dicom.read_dicom`, `mim.data.images.read_image` and `mim.data.nifti.read_nifti` for what is done to
    the pixels.

    Args:
        path: The file; its extension plays no part.
        frame: Zero-based frame of a multi-frame DICOM or multi-page TIFF.
        voi: Which of several VOI LUTs and windows of a DICOM, from 0: the LUTs first, then the windows. Where there
            are fewer, the first.
        color: "skip" refuses colour pictures; "gray" reads their luminance.

    Raises:
        UnreadableRadiograph: With a `Reason`, for anything that is not a readable radiograph.
        ValueError: `voi` is negative, or `color` is neither of the two.
    """
    if voi < 0 or color not in get_args(ColourPolicy):
        raise ValueError(f"voi must be 0 or more and color skip or gray, not {voi} and {color}")
    path = Path(path)
    kind = file_format(path)
    if kind == "dicom":
        return read_dicom(path, frame, voi=voi, color=color)
    if kind == "nifti":
        return read_nifti(path, frame, color=color)
    return read_image(path, kind, frame, color=color)


def count_frames(path: Path | str, *, color: ColourPolicy = "skip") -> int:
    """Return the number of frames, from the header alone.

    Args:
        path: The file.
        color: As in `read_radiograph`.

    Raises:
        UnreadableRadiograph: With a `Reason`, where the header shows that no frame can be read.
    """
    path = Path(path)
    kind = file_format(path)
    if kind == "dicom":
        return count_dicom_frames(path, color=color)
    return count_nifti_frames(path, color=color) if kind == "nifti" else count_image_frames(path, kind)


def read_size(path: Path | str) -> tuple[int, int]:
    """Return (width, height) of the first frame as `read_radiograph` gives it, from the header alone.

    Raises:
        UnreadableRadiograph: With a `Reason`, where the header shows that it cannot be read.
    """
    path = Path(path)
    kind = file_format(path)
    if kind == "nifti":  # no format of large films: reading one is as quick as asking for its size
        height, width = read_nifti(path, 0, color="gray").pixels.shape
        return width, height
    return dicom_size(path) if kind == "dicom" else image_size(path, kind)


def file_format(path: Path | str) -> ImageFormat:
    """Return the kind of file by its first bytes.

    Raises:
        UnreadableRadiograph: "missing", "empty" or "not-an-image".
    """
    path = Path(path)
    if path.is_dir():
        raise UnreadableRadiograph(path, "not-an-image", "a folder")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_LENGTH)
    except (OSError, ValueError) as error:
        detail = error.strerror if isinstance(error, OSError) and error.strerror else "no usable path"
        raise UnreadableRadiograph(path, "missing", detail) from None
    if not head:
        raise UnreadableRadiograph(path, "empty", "zero bytes")
    if head[128:132] == b"DICM":
        return "dicom"
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if looks_like_nifti(head):
        return "nifti"
    if looks_like_dicom(head):
        return "dicom"
    raise UnreadableRadiograph(path, "not-an-image", "the content is neither DICOM nor PNG, JPEG, TIFF or NIfTI")
