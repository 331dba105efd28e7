"""From the pixel element of a DICOM file to the stored integers of one frame."""

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from numpy.typing import NDArray
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from mim.data.dicom_extended import decode_extended_jpeg
from mim.data.dicom_file import DicomFile, PixelElement
from mim.data.dicom_header import Header
from mim.data.dicom_lossless import decode_lossless_jpeg
from mim.data.radiograph_types import UnreadableRadiograph, refuse_bomb, refuse_oversized

_CONTAINERS = (1, 8, 16, 32)
_PLUGINS_FAILED = "Unable to decode as exceptions were raised by all available plugins:"
_UNDEFINED_LENGTH = 0xFFFFFFFF
_ITEM, _DELIMITER = 0xFFFEE000, 0xFFFEE0DD
_DECODE_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    OSError,
    EOFError,
    struct.error,
)


@dataclass(frozen=True)
class PixelFormat:
    """How one frame is stored (DICOM PS3.3 C.7.6.3, PS3.5 section 8.1).

    Attributes:
        samples: 1, or 3 for RGB and YBR.
        colour_space: Photometric interpretation of the stored samples; palette indices count as MONOCHROME2.
        planar: Planar Configuration, 1 where an uncompressed frame holds plane after plane.
    """

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    samples: int = 1
    colour_space: str = "MONOCHROME2"
    planar: int = 0

    @property
    def lowest(self) -> int:
        """Smallest value that can be stored."""
        return -(1 << self.bits_stored - 1) if self.signed else 0

    @property
    def highest(self) -> int:
        """Largest value that can be stored."""
        return self.lowest + (1 << self.bits_stored) - 1

    @classmethod
    def of(cls, header: Header) -> "PixelFormat":
        """Read and check the format.

        Bits Stored, High Bit, Pixel Representation and Number of Frames fall back on the container's bits, the top
        of the stored bits, unsigned and 1 where they are absent; an impossible High Bit counts as absent.

        Raises:
            UnreadableRadiograph: "invalid-header" or "too-large".
        """
        rows, columns = header.integer("Rows"), header.integer("Columns")
        if not (0 < rows < 1 << 16 and 0 < columns < 1 << 16):
            header.refuse(f"{rows} rows x {columns} columns")
        refuse_oversized(header.path, rows, columns)
        frames = header.integer("NumberOfFrames", 1) or 1
        allocated = header.integer("BitsAllocated")
        stored = header.integer("BitsStored", allocated)
        sign = header.integer("PixelRepresentation", 0)
        if frames < 0 or allocated not in _CONTAINERS or not 0 < stored <= allocated or sign not in (0, 1):
            header.refuse(f"{frames} frames, {stored} bits stored of {allocated}, pixel representation {sign}")
        high_bit = header.integer("HighBit", stored - 1)
        if not stored <= high_bit + 1 <= allocated:
            high_bit = stored - 1
        return cls(rows, columns, frames, allocated, stored, high_bit, signed=sign == 1)


def decode_frame(file: DicomFile, pixels: PixelElement, pixel_format: PixelFormat, frame: int) -> NDArray[Any]:
    """Decode one frame; of a multi-frame file no other is read.

    Returns:
        (rows, columns), the stored integers without the unused bits of their container; or (rows, columns, 3), RGB.

    Raises:
        UnreadableRadiograph: "truncated", "undecodable" or "invalid-header".
    """
    path = file.header.path
    if not file.syntax.is_transfer_syntax:
        raise UnreadableRadiograph(path, "undecodable", "unknown transfer syntax")
    try:
        decoder = get_decoder(file.syntax)
    except NotImplementedError:
        raise UnreadableRadiograph(path, "undecodable", f"{file.syntax.name} is not supported") from None
    encoded = None
    if file.syntax.is_encapsulated:
        encoded = _encoded_frame(file, pixels, pixel_format, frame)
        refuse_bomb(path, pixel_format.rows, pixel_format.columns, len(encoded))
        _check_codestream(file, encoded, pixel_format)
    else:
        _check_native_length(file, pixels, pixel_format)
    file.stream.seek(pixels.offset)
    try:
        decoded = None if encoded is None else _decode_apart(file.syntax, encoded, pixel_format)
        if decoded is None:
            decoded, _ = decoder.as_array(file.stream, **_decoder_options(file, pixels, pixel_format, frame))
    except _DECODE_ERRORS as error:
        # Decoders see the pixel element and numbers checked above only, so their texts cannot name a patient.
        cut_off = encoded is not None and _is_jpeg(file.syntax) and b"\xff\xd9" not in encoded[-64:]
        detail = f"{file.syntax.name}: {str(error).removeprefix(_PLUGINS_FAILED).strip()}"
        raise UnreadableRadiograph(path, "truncated" if cut_off else "undecodable", detail) from None
    stored: NDArray[Any] = decoded.astype(decoded.dtype.newbyteorder("="), copy=False)
    if file.syntax in JPEG2000TransferSyntaxes or file.syntax in JPEGLSTransferSyntaxes:
        return stored  # their codestreams know their own precision
    return _used_bits(stored, pixel_format, in_place=encoded is not None)


def check_frames(file: DicomFile, pixels: PixelElement, pixel_format: PixelFormat) -> None:
    """Refuse a file that is too short for the frames that it declares, of which there may be billions.

    Raises:
        UnreadableRadiograph: "truncated", "undecodable" or "invalid-header".
    """
    if not file.syntax.is_transfer_syntax:
        return  # decoding says so
    if not file.syntax.is_encapsulated:
        _check_native_length(file, pixels, pixel_format)
    elif pixels.length == _UNDEFINED_LENGTH:
        file.stream.seek(pixels.offset)
        _check_fragments(file, pixel_format.frames)


def _decode_apart(syntax: UID, encoded: bytes, pixel_format: PixelFormat) -> NDArray[Any] | None:
    """Decode what pydicom's own choice of decoder is slow at or cannot do; None for all else."""
    if pixel_format.samples != 1:
        return None
    rows, columns, signed = pixel_format.rows, pixel_format.columns, pixel_format.signed
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        return decode_lossless_jpeg(encoded, rows, columns, pixel_format.bits_allocated, signed=signed)
    if syntax == JPEGExtended12Bit and pixel_format.bits_stored > 8:
        return decode_extended_jpeg(encoded, rows, columns, pixel_format.bits_stored, signed=signed)
    return None


def _decoder_options(file: DicomFile, pixels: PixelElement, pixel_format: PixelFormat, frame: int) -> dict[str, Any]:
    options: dict[str, Any] = {
        "index": frame,
        "raw": pixel_format.samples == 1,
        "decoding_plugin": _plugin(file.syntax, pixel_format),
        "rows": pixel_format.rows,
        "columns": pixel_format.columns,
        "number_of_frames": pixel_format.frames,
        "samples_per_pixel": pixel_format.samples,
        "photometric_interpretation": pixel_format.colour_space,
        "planar_configuration": pixel_format.planar,
        "bits_allocated": pixel_format.bits_allocated,
        "bits_stored": pixel_format.bits_stored,
        "pixel_representation": int(pixel_format.signed),
        "pixel_keyword": "PixelData",
        "correct_unused_bits": False,
        "view_only": True,
    }
    if pixels.vr is not None:
        options["pixel_vr"] = pixels.vr
    if (offsets := _extended_offsets(file.header)) is not None:
        options["extended_offsets"] = offsets
    return options


def _plugin(syntax: UID, pixel_format: PixelFormat) -> str:
    """Return the decoder to use, or an empty string for whichever can."""
    if syntax in JPEG2000TransferSyntaxes:
        return "pylibjpeg"  # its OpenJPEG is newer than the one inside GDCM, and silent
    if syntax == RLELossless:
        return "pydicom"  # pylibjpeg-rle panics on broken segments, past any `except Exception`
    if syntax in JPEGLSTransferSyntaxes and pixel_format.bits_stored in (6, 7):
        return "pyjpegls"  # GDCM cannot
    return ""


def _used_bits(stored: NDArray[Any], pixel_format: PixelFormat, *, in_place: bool) -> NDArray[Any]:
    """Keep the bits from High Bit down; the others may hold overlays or rubbish (PS3.5 section 8.1.1)."""
    if pixel_format.bits_allocated == 1:
        return stored
    container = 8 * stored.dtype.itemsize
    # Inside a codestream the samples always sit at the bottom.
    high_bit = pixel_format.bits_stored - 1 if in_place else pixel_format.high_bit
    left, right = container - 1 - high_bit, container - pixel_format.bits_stored
    if left == right and (right == 0 or _fits(stored, pixel_format)):
        return stored
    return stored << left >> right


def _fits(stored: NDArray[Any], pixel_format: PixelFormat) -> bool:
    """Whether the unused bits are clear, or copies of the sign; looking is several times as fast as shifting."""
    return bool(pixel_format.lowest <= stored.min() and stored.max() <= pixel_format.highest)


def _check_native_length(file: DicomFile, pixels: PixelElement, pixel_format: PixelFormat) -> None:
    # 4:2:2 keeps two of the three samples of a pixel.
    samples = 2 if pixel_format.colour_space == "YBR_FULL_422" else pixel_format.samples
    frame_bits = pixel_format.rows * pixel_format.columns * samples * pixel_format.bits_allocated
    expected = -(-frame_bits * pixel_format.frames // 8)
    present = file.length - pixels.offset
    if pixels.length == _UNDEFINED_LENGTH:
        file.header.refuse("pixels in fragments, but an uncompressed transfer syntax")
    if min(present, pixels.length) < expected:
        detail = f"{min(present, pixels.length)} of {expected} bytes of pixels"
        raise UnreadableRadiograph(file.header.path, "truncated", detail)


def _encoded_frame(file: DicomFile, pixels: PixelElement, pixel_format: PixelFormat, frame: int) -> bytes:
    path = file.header.path
    if pixels.length != _UNDEFINED_LENGTH:
        file.header.refuse("pixels in one piece, but a compressed transfer syntax")
    file.stream.seek(pixels.offset)
    _check_fragments(file, pixel_format.frames)
    file.stream.seek(pixels.offset)
    try:
        encoded: bytes = get_frame(
            file.stream,
            frame,
            number_of_frames=pixel_format.frames,
            extended_offsets=_extended_offsets(file.header),
        )
    except _DECODE_ERRORS as error:
        raise UnreadableRadiograph(path, "undecodable", f"fragments do not make up the frames: {error}") from None
    if not encoded:
        raise UnreadableRadiograph(path, "truncated", "the frame is empty")
    return encoded


def _check_fragments(file: DicomFile, frames: int) -> None:
    """Refuse fewer fragments than frames, and a last one cut off; only the delimiter after it may be missing."""
    stream: BinaryIO = file.stream
    fragments = -1  # the first item is the offset table
    while len(head := stream.read(8)) == 8:
        group, element, length = struct.unpack("<HHL", head)
        tag = group << 16 | element
        if tag == _DELIMITER:
            head = b""
            break
        if tag != _ITEM:
            raise UnreadableRadiograph(file.header.path, "undecodable", "an unknown element among the fragments")
        if stream.tell() + length > file.length:
            raise UnreadableRadiograph(file.header.path, "truncated", "the file ends inside a fragment")
        stream.seek(length, 1)
        fragments += 1
    if head:
        raise UnreadableRadiograph(file.header.path, "truncated", "the file ends between fragments")
    if fragments < frames:
        raise UnreadableRadiograph(file.header.path, "truncated", f"{fragments} fragments for {frames} frames")


def _extended_offsets(header: Header) -> tuple[bytes, bytes] | None:
    offsets, lengths = header.raw("ExtendedOffsetTable"), header.raw("ExtendedOffsetTableLengths")
    return (offsets, lengths) if offsets and lengths and len(offsets) == len(lengths) else None


def _is_jpeg(syntax: UID) -> bool:
    return any(syntax in family for family in (JPEGTransferSyntaxes, JPEGLSTransferSyntaxes, JPEG2000TransferSyntaxes))


def _check_codestream(file: DicomFile, encoded: bytes, pixel_format: PixelFormat) -> None:
    """Refuse a codestream of another size than the header's, since a decoder would allocate what it claims."""
    if not _is_jpeg(file.syntax):
        return
    in_jpeg2000 = file.syntax in JPEG2000TransferSyntaxes
    size = _jpeg2000_size(encoded) if in_jpeg2000 else _jpeg_size(encoded)
    if size is None:
        raise UnreadableRadiograph(file.header.path, "undecodable", f"{file.syntax.name}: no codestream found")
    if size != (pixel_format.rows, pixel_format.columns, pixel_format.samples):
        rows, columns, components = size
        file.header.refuse(
            f"the codestream has {rows} x {columns} pixels of {components} samples, "
            f"the header {pixel_format.rows} x {pixel_format.columns} of {pixel_format.samples}"
        )


def _jpeg2000_size(encoded: bytes) -> tuple[int, int, int] | None:
    """Return (rows, columns, components) of the SIZ segment (ISO/IEC 15444-1 A.5.1)."""
    start = encoded.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or len(encoded) < start + 42:
        return None
    right, bottom, left, top = struct.unpack(">4L", encoded[start + 8 : start + 24])
    components = struct.unpack(">H", encoded[start + 40 : start + 42])[0]
    return bottom - top, right - left, components


def _jpeg_size(encoded: bytes) -> tuple[int, int, int] | None:
    """Return (rows, columns, components) of the frame header (ISO/IEC 10918-1 B.2.2, 14495-1 C.2.2)."""
    position = 2
    while encoded[position : position + 1] == b"\xff" and position + 10 <= len(encoded):
        marker = encoded[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xDA:
            return None
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns, components = struct.unpack(">HHB", encoded[position + 5 : position + 10])
            return rows, columns, components
        position += 2 + struct.unpack(">H", encoded[position + 2 : position + 4])[0]
    return None
