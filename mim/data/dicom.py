"""DICOM radiographs, rendered as they are meant to be shown."""

from dataclasses import replace
from pathlib import Path

from mim.data.dicom_colour import COLOURS, luminance, stored_as
from mim.data.dicom_display import render
from mim.data.dicom_file import PIXEL_DATA, DicomFile, PixelElement, object_name, open_dicom
from mim.data.dicom_header import Header
from mim.data.dicom_pixels import PixelFormat, check_frames, decode_frame
from mim.data.radiograph_types import ColourPolicy, Radiograph, RadiographMeta, UnreadableRadiograph
from mim.data.square_pixels import make_square, square_size

# Objects with pixels that show no film: segmentation, label map, parametric map, dose.
_NOT_FILMS = (
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.66.7",
    "1.2.840.10008.5.1.4.1.1.30",
    "1.2.840.10008.5.1.4.1.1.481.2",
)
_WIDEST_ASPECT = 10.0


def read_dicom(path: Path, frame: int = 0, *, voi: int = 0, color: ColourPolicy = "skip") -> Radiograph:
    """Read one frame through the grayscale stages of the standard.

    1. Decode: bits stored at the high bit, signed or not. Overlays are ignored.
    2. Modality LUT sequence, else rescale.
    3. VOI LUT, or window with its function. Without either, see `mim.data.dicom_display.render`.
    4. MONOCHROME1 turned over, so that 1 is bright tissue; pixel padding to 0.
    5. Pixels that are not square (PixelSpacing, ImagerPixelSpacing or PixelAspectRatio off by more than 1 %) are
       made square by linear interpolation along the coarser axis.

    Colour pictures have no grayscale stages: they are refused, or turned into their luminance.

    Where the header is silent, one sample a pixel and MONOCHROME2 are taken. Without file meta, the encoding is
    guessed among the uncompressed ones.

    Args:
        path: The file, with or without preamble.
        frame: Zero-based.
        voi: Which of several, counted from 0: the VOI LUTs in their order, then the windows in theirs. A frame that
            offers fewer is shown with its first.
        color: "skip" refuses colour pictures; "gray" reads their luminance.

    Raises:
        UnreadableRadiograph: With a `Reason`.
    """
    with open_dicom(path) as file:
        pixels, pixel_format = _describe(file, color)
        if not 0 <= frame < pixel_format.frames:
            detail = f"frame {frame} of {pixel_format.frames} (the first is 0)"
            raise UnreadableRadiograph(path, "frame-out-of-range", detail)
        header = file.header.for_frame(frame)
        spacing, aspect = _spacing(header)
        stored = decode_frame(file, pixels, pixel_format, frame)
        in_colour = _photometric(header).startswith(COLOURS)
        shown = luminance(stored, header, pixel_format) if in_colour else render(stored, header, pixel_format, voi)
        shown, spacing = make_square(path, shown, spacing, aspect)
        return Radiograph(shown, _meta(header, pixel_format, spacing))


def count_dicom_frames(path: Path, *, color: ColourPolicy = "skip") -> int:
    """Return the number of frames that the header declares and the file can hold.

    Args:
        path: The file.
        color: As in `read_dicom`.

    Raises:
        UnreadableRadiograph: With a `Reason`, where the header shows that none can be read.
    """
    with open_dicom(path) as file:
        pixels, pixel_format = _describe(file, color)
        check_frames(file, pixels, pixel_format)
        return pixel_format.frames


def dicom_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of the first frame as `read_dicom` gives it, from the header alone.

    Raises:
        UnreadableRadiograph: With a `Reason`, where the header shows that it cannot be read.
    """
    with open_dicom(path) as file:
        _, pixel_format = _describe(file, "gray")
        _, aspect = _spacing(file.header.for_frame(0))
        rows, columns = square_size(pixel_format.rows, pixel_format.columns, aspect)
        return columns, rows


def _describe(file: DicomFile, color: ColourPolicy) -> tuple[PixelElement, PixelFormat]:
    """Return where the pixels are and how they are stored, or refuse what is no film."""
    path, header, name = file.header.path, file.header, object_name(file.sop_class)
    modality = header.text("Modality")
    if file.sop_class in _NOT_FILMS or modality in ("SEG", "RTDOSE"):
        raise UnreadableRadiograph(path, "unsupported-object", name)
    if file.pixels is None:
        # An image without pixels was cut off; anything else never had any.
        cut_off = "Image Storage" in name or bool(header.numbers("Rows"))
        if cut_off or not file.sop_class:
            raise UnreadableRadiograph(path, "truncated", "the file ends before its pixels")
        raise UnreadableRadiograph(path, "unsupported-object", f"{name} has no pixels")
    if file.pixels.tag != PIXEL_DATA:
        raise UnreadableRadiograph(path, "unsupported-object", f"{name} with floating-point pixels")
    photometric = _photometric(header)
    samples = header.integer("SamplesPerPixel", 1)
    if samples > 1 or photometric.startswith(COLOURS):
        known = color == "gray" and stored_as(photometric, samples) is not None
        if not known:
            raise UnreadableRadiograph(path, "colour", f"{name} with {samples} samples a pixel")
        planar = header.integer("PlanarConfiguration", 0)
        colour_space = stored_as(photometric, samples) or photometric
        return file.pixels, replace(PixelFormat.of(header), samples=samples, colour_space=colour_space, planar=planar)
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or samples < 1:
        header.refuse(f"unknown photometric interpretation, {samples} samples a pixel")
    return file.pixels, PixelFormat.of(header)


def _photometric(header: Header) -> str:
    return header.text("PhotometricInterpretation") or "MONOCHROME2"


def _spacing(header: Header) -> tuple[tuple[float, float] | None, float]:
    """Return the spacing in mm (between rows, between columns) and their ratio; zero spacings count as absent."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        numbers = header.numbers(keyword)
        if len(numbers) == 2 and min(numbers) > 0:
            return (numbers[0], numbers[1]), _aspect(header, numbers)
    numbers = header.numbers("PixelAspectRatio")
    if len(numbers) == 2 and min(numbers) > 0:
        return None, _aspect(header, numbers)
    return None, 1.0


def _aspect(header: Header, vertical_horizontal: list[float]) -> float:
    aspect = vertical_horizontal[0] / vertical_horizontal[1]
    if not 1 / _WIDEST_ASPECT <= aspect <= _WIDEST_ASPECT:
        header.refuse(f"pixels with an aspect ratio of {aspect:.3g}")
    return aspect


def _meta(header: Header, pixel_format: PixelFormat, spacing: tuple[float, float] | None) -> RadiographMeta:
    modality = header.text("Modality")
    return RadiographMeta(
        format="dicom",
        modality=modality if modality and _is_code(modality) else None,
        bits=pixel_format.bits_stored,
        frames=pixel_format.frames,
        spacing_mm=spacing,
        patient_id=header.text("PatientID"),
        study_id=header.text("StudyInstanceUID"),
        series_order=_series_order(header),
        burned_in={"YES": True, "NO": False}.get(header.text("BurnedInAnnotation") or ""),
    )


def _is_code(modality: str) -> bool:
    # A free text in this field could name somebody.
    return len(modality) <= 8 and modality.isascii() and modality.isalnum() and modality.isupper()


def _series_order(header: Header) -> int | None:
    try:
        return header.integer("InstanceNumber")
    except UnreadableRadiograph:  # no reason to refuse a film
        return None
