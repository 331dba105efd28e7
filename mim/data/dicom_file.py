"""Opening DICOM files that may be old, odd or hostile: encoding, header, and where the pixels start."""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.values import converters

from mim.data.dicom_header import FIELDS, HEADER_ERRORS, Header
from mim.data.radiograph_types import UnreadableRadiograph

PIXEL_DATA = 0x7FE00010
_PIXEL_TAGS = frozenset({PIXEL_DATA, 0x7FE00008, 0x7FE00009})
_LONG_VRS = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"UN"})
_META_FIELDS = ("TransferSyntaxUID", "MediaStorageSOPClassUID")
_INFLATED_LIMIT = 1 << 29
_HARMLESS = 1 << 26
_INFLATED_RATIO = 100  # films deflate to a half or a tenth; zeros to a thousandth


@dataclass(frozen=True)
class PixelElement:
    """Where the pixels stand: tag, value representation (None if implicit), offset of the value, declared length."""

    tag: int
    vr: str | None
    offset: int
    length: int


@dataclass(frozen=True)
class DicomFile:
    """An open DICOM file.

    Attributes:
        header: The fields that the reader needs; no others are parsed.
        syntax: Transfer syntax, guessed where the file does not say.
        sop_class: SOP class UID, or an empty string.
        stream: The data set, inflated where it was deflated.
        length: Bytes in `stream`.
        pixels: None where the data set ends without pixels.
    """

    header: Header
    syntax: UID
    sop_class: UID
    stream: BinaryIO
    length: int
    pixels: PixelElement | None


class _BoundedFile(io.BufferedReader):
    """A file whose reads never allocate more than is left in it, whatever length a header claims."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.length = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.length - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first bytes of a file without the DICM mark can be a data set.

    Data sets start with a file meta (0002,eeee) or an identifying (0008,eeee) element; its value representation
    must be a known one, or else its length must fit a value of that group.
    """
    if len(head) < 8:
        return False
    group, element = struct.unpack("<HH", head[:4])
    known_vr = head[4:6].isalpha() and head[4:6].decode("latin-1") in converters
    if group in (0x0200, 0x0800):
        return known_vr
    if group not in (0x0002, 0x0008) or element > 0x3000:
        return False
    return known_vr or struct.unpack("<L", head[4:8])[0] <= 1024


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep the warnings and logs of pydicom, which may quote header values, from any handler."""
    logger = logging.getLogger("pydicom")
    propagate = logger.propagate
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.propagate = propagate


@contextmanager
def open_dicom(path: Path) -> Iterator[DicomFile]:
    """Open a DICOM file with or without preamble and file meta, and parses its header up to the pixels.

    Raises:
        UnreadableRadiograph: "missing", "not-an-image", "invalid-header", "truncated", "undecodable" or "too-large".
    """
    try:
        file = _BoundedFile(path)
    except OSError as error:
        raise UnreadableRadiograph(path, "missing", error.strerror or "cannot be opened") from None
    with file, quiet_pydicom():
        try:
            opened = _parse(path, file)
        except HEADER_ERRORS as error:
            # The native text may quote values of the header, so only its type is told.
            detail = f"the data set cannot be parsed ({type(error).__name__})"
            raise UnreadableRadiograph(path, "invalid-header", detail) from None
        yield opened


def _parse(path: Path, file: _BoundedFile) -> DicomFile:
    marked = read_preamble(file, force=True) is not None
    meta = _file_meta(file)
    syntax = UID(str(meta.get("TransferSyntaxUID") or _guess_syntax(file)))
    stream: BinaryIO = file
    length = file.length
    if syntax == DeflatedExplicitVRLittleEndian:
        inflated = _inflate(path, file)
        stream, length = io.BytesIO(inflated), len(inflated)
    dataset = read_dataset(
        stream,
        is_implicit_VR=syntax == ImplicitVRLittleEndian,
        is_little_endian=syntax != ExplicitVRBigEndian,
        stop_when=lambda tag, vr, length: tag in _PIXEL_TAGS,
        specific_tags=_tags(FIELDS),
    )
    header = Header(path, (dataset,), little_endian=syntax != ExplicitVRBigEndian)
    sop_class = UID(header.text("SOPClassUID") or str(meta.get("MediaStorageSOPClassUID") or ""))
    pixels = _pixel_element(stream, dataset)
    if pixels is None and not marked and not sop_class:
        raise UnreadableRadiograph(path, "not-an-image", "neither a DICOM mark nor a DICOM object")
    return DicomFile(header, syntax, sop_class, stream, length, pixels)


def _tags(keywords: tuple[str, ...]) -> list[BaseTag]:
    return [BaseTag(tag_for_keyword(keyword)) for keyword in keywords]


def _file_meta(file: BinaryIO) -> Dataset:
    start = file.tell()
    group = file.read(2)
    file.seek(start)
    if group != b"\x02\x00":
        return Dataset()
    return read_dataset(
        file,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, vr, length: tag >> 16 != 2,
        specific_tags=_tags(_META_FIELDS),
    )


def _guess_syntax(file: BinaryIO) -> UID:
    """Guess an uncompressed syntax from the first element: groups are small, so a large one is a swapped one."""
    start = file.tell()
    head = file.read(6)
    file.seek(start)
    if len(head) < 6 or not head[4:6].isalpha() or head[4:6].decode("latin-1") not in converters:
        return ImplicitVRLittleEndian
    return ExplicitVRBigEndian if struct.unpack("<H", head[:2])[0] >= 0x0100 else ExplicitVRLittleEndian


def _inflate(path: Path, file: BinaryIO) -> bytes:
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    deflated = file.read()
    limit = min(_INFLATED_LIMIT, max(_HARMLESS, _INFLATED_RATIO * len(deflated)))
    try:
        data = decompressor.decompress(deflated, limit)
    except zlib.error:
        raise UnreadableRadiograph(path, "undecodable", "the deflated data set is broken") from None
    if decompressor.unconsumed_tail:
        raise UnreadableRadiograph(path, "too-large", f"{len(deflated):,} bytes inflate to more than {limit:,}")
    if not decompressor.eof:
        raise UnreadableRadiograph(path, "truncated", "the deflated data set ends early")
    return data


def _pixel_element(stream: BinaryIO, dataset: Dataset) -> PixelElement | None:
    implicit, little_endian = dataset.original_encoding
    endian = "<" if little_endian else ">"
    head = stream.read(8)
    if len(head) < 8:
        return None
    group, element, vr, length = struct.unpack(f"{endian}HH2sH", head)
    if implicit:
        length = struct.unpack(f"{endian}L", head[4:])[0]
    elif vr in _LONG_VRS:
        long_length = stream.read(4)
        if len(long_length) < 4:
            return None
        length = struct.unpack(f"{endian}L", long_length)[0]
    return PixelElement(group << 16 | element, None if implicit else vr.decode("latin-1"), stream.tell(), length)


def object_name(sop_class: UID) -> str:
    """Return the standard's name of a SOP class, or a plain word where it has none."""
    name: Any = sop_class.name
    return str(name) if sop_class and name != sop_class else "unknown DICOM object"
