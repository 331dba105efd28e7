"""Typed access to header fields that may hold anything."""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from mim.data.radiograph_types import UnreadableRadiograph

FIELDS = (
    "SOPClassUID",
    "Modality",
    "PresentationIntentType",
    "PatientID",
    "StudyInstanceUID",
    "InstanceNumber",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "PixelAspectRatio",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "BurnedInAnnotation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PixelIntensityRelationship",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)
"""All that is ever parsed of a header."""

HEADER_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    OSError,
    struct.error,
    BytesLengthException,
    InvalidDicomError,
)
"""What pydicom raises on values, lengths and nestings that do not follow the standard."""

_FRAME_MACROS = ("PixelMeasuresSequence", "FrameVOILUTSequence", "PixelValueTransformationSequence")


@dataclass(frozen=True)
class Header:
    """Header fields by keyword, looked up in `datasets` in turn.

    A field that cannot be converted raises `UnreadableRadiograph` "invalid-header" with its keyword, never its value.
    An absent or empty field is None or an empty list.
    """

    path: Path
    datasets: tuple[Dataset, ...]
    little_endian: bool

    def text(self, keyword: str) -> str | None:
        """Return the first value as stripped text."""
        values = self._values(keyword)
        if not values:
            return None
        value = values[0].decode("latin-1") if isinstance(values[0], bytes) else str(values[0])
        return value.strip("\0 ") or None

    def numbers(self, keyword: str) -> list[float]:
        """Return all values as finite floats."""
        try:
            numbers = [float(value) for value in self._values(keyword)]
        except HEADER_ERRORS:
            self.refuse(f"{keyword} is not a number")
        if not all(math.isfinite(number) for number in numbers):
            self.refuse(f"{keyword} is not a finite number")
        return numbers

    def number(self, keyword: str) -> float | None:
        """Return the first value as a finite float."""
        return next(iter(self.numbers(keyword)), None)

    def integer(self, keyword: str, default: int | None = None) -> int:
        """Return the first value as an integer; without a default the field must be there."""
        number = self.number(keyword)
        if number is None:
            if default is None:
                self.refuse(f"{keyword} is absent")
            return default
        if number != int(number):
            self.refuse(f"{keyword} is not an integer")
        return int(number)

    def words(self, keyword: str) -> NDArray[np.uint16]:
        """Return 16-bit values, kept as bytes or as numbers, without their sign."""
        values = self._values(keyword)
        try:
            if values and isinstance(values[0], bytes):
                even = values[0][: len(values[0]) // 2 * 2]
                return np.frombuffer(even, dtype="<u2" if self.little_endian else ">u2").astype(np.uint16)
            return (np.array(values, dtype=np.int64) & 0xFFFF).astype(np.uint16)
        except HEADER_ERRORS:
            self.refuse(f"{keyword} does not hold 16-bit integers")

    def raw(self, keyword: str) -> bytes | None:
        """Return the value where it is kept as bytes."""
        values = self._values(keyword)
        return values[0] if values and isinstance(values[0], bytes) else None

    def items(self, keyword: str) -> list["Header"]:
        """Return the items of a sequence."""
        values = self._values(keyword)
        if not all(isinstance(value, Dataset) for value in values):
            self.refuse(f"{keyword} is not a sequence")
        return [Header(self.path, (value,), self.little_endian) for value in values]

    def for_frame(self, frame: int) -> "Header":
        """Return the header of one frame: its own functional groups first, then the shared ones, then the rest.

        Enhanced multi-frame objects keep spacing, rescale and window there (DICOM PS3.3 C.7.6.16).
        """
        groups = self.items("PerFrameFunctionalGroupsSequence")[frame : frame + 1]
        groups += self.items("SharedFunctionalGroupsSequence")[:1]
        macros = [item.datasets[0] for group in groups for macro in _FRAME_MACROS for item in group.items(macro)[:1]]
        return Header(self.path, (*macros, *self.datasets), self.little_endian)

    def refuse(self, detail: str) -> NoReturn:
        """Raise "invalid-header"; `detail` may name fields but not quote text values."""
        raise UnreadableRadiograph(self.path, "invalid-header", detail) from None

    def _values(self, keyword: str) -> list[Any]:
        try:
            value = next((dataset[keyword].value for dataset in self.datasets if keyword in dataset), None)
            if value is None or (isinstance(value, str | bytes) and not value):
                return []
            if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
                return [value]
            # A data set iterates over its elements; a person name over its letters.
            return [value] if isinstance(value, Dataset) else list(value)
        except HEADER_ERRORS:
            self.refuse(f"{keyword} cannot be parsed")
