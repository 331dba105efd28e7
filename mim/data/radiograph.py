"""The door to image files: any radiograph in, float32 in [0, 1] out."""

from pathlib import Path

from mim.data.dicom import count_dicom_frames, dicom_size, read_dicom
from mim.data.dicom_file import looks_like_dicom
from mim.data.images import count_image_frames, image_size, read_image
from mim.data.radiograph_types import (
    MAX_PIXELS,
    ImageFormat,
    Radiograph,
    RadiographMeta,
    Reason,
    UnreadableRadiograph,
)

__all__ = [
    "MAX_PIXELS",
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
_HEAD_LENGTH = 132


def read_radiograph(path: Path | str, frame: int = 0) -> Radiograph:
    """Read one frame of a DICOM, PNG, JPEG or TIFF file as it is meant to be shown.

    See `mim.data.dicom.read_dicom` and `mim.data.images.read_image` for what is done to the pixels.

    Args:
        path: The file; its extension plays no part.
        frame: Zero-based frame of a multi-frame DICOM or multi-page TIFF.

    Raises:
        UnreadableRadiograph: With a `Reason`, for anything that is not a readable radiograph.
    """
    path = Path(path)
    kind = file_format(path)
    if kind == "dicom":
        return read_dicom(path, frame)
    return read_image(path, kind, frame)


def count_frames(path: Path | str) -> int:
    """Return the number of frames, from the header alone.

    Raises:
        UnreadableRadiograph: With a `Reason`, where the header shows that no frame can be read.
    """
    path = Path(path)
    kind = file_format(path)
    return count_dicom_frames(path) if kind == "dicom" else count_image_frames(path, kind)


def read_size(path: Path | str) -> tuple[int, int]:
    """Return (width, height) of the first frame as `read_radiograph` gives it, from the header alone.

    Raises:
        UnreadableRadiograph: With a `Reason`, where the header shows that it cannot be read.
    """
    path = Path(path)
    kind = file_format(path)
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
    if looks_like_dicom(head):
        return "dicom"
    raise UnreadableRadiograph(path, "not-an-image", "the content is neither DICOM nor PNG, JPEG or TIFF")
