"""The grayscale stages of DICOM (PS3.3 C.11.1, C.11.2): modality, values of interest, and their output range."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mim.data.dicom_header import Header

Values = NDArray[np.float64]


class ModalityStage(Protocol):
    """Stored values to modality values."""

    def __call__(self, values: Values) -> Values:
        """Map values elementwise."""
        ...

    def output_range(self, lowest: int, highest: int) -> tuple[float, float]:
        """Return the smallest and the largest output for stored values between `lowest` and `highest`."""
        ...


class VoiStage(Protocol):
    """Modality values to display values."""

    def __call__(self, values: Values) -> Values:
        """Map values elementwise into [0, 1]."""
        ...


@dataclass(frozen=True)
class Rescale:
    """Rescale slope and intercept (PS3.3 C.11.1.1.2); the defaults change nothing."""

    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, values: Values) -> Values:
        """Map values elementwise."""
        return values * self.slope + self.intercept

    def output_range(self, lowest: int, highest: int) -> tuple[float, float]:
        """Return the range of the outputs."""
        ends = (lowest * self.slope + self.intercept, highest * self.slope + self.intercept)
        return min(ends), max(ends)


@dataclass(frozen=True)
class LookupTable:
    """A LUT: inputs from `first` on are mapped to `entries`, those outside to its ends (PS3.3 C.11.1.1.1).

    Attributes:
        first: Input of the first entry.
        entries: The outputs.
        top: Largest output of the range that the entries belong to.
    """

    first: int
    entries: Values
    top: int

    def __call__(self, values: Values) -> Values:
        """Map values elementwise; fractions are cut off."""
        index = np.clip(np.floor(values) - self.first, 0, len(self.entries) - 1).astype(np.intp)
        outputs: Values = self.entries[index]
        return outputs

    def output_range(self, lowest: int, highest: int) -> tuple[float, float]:
        """Return the range of the outputs that can occur, not that of their container."""
        start, stop = np.clip([lowest - self.first, highest - self.first], 0, len(self.entries) - 1)
        reached = self.entries[start : stop + 1]
        return float(reached.min()), float(reached.max())


@dataclass(frozen=True)
class TableOfInterest:
    """A VOI LUT with its output scaled to [0, 1]."""

    table: LookupTable

    def __call__(self, values: Values) -> Values:
        """Map values elementwise into [0, 1]."""
        return self.table(values) / self.table.top


@dataclass(frozen=True)
class Window:
    """A window in modality values (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Attributes:
        centre: Window Center.
        width: Window Width, above 0.
        function: LINEAR, LINEAR_EXACT or SIGMOID.
    """

    centre: float
    width: float
    function: str = "LINEAR"

    def __call__(self, values: Values) -> Values:
        """Map values elementwise into [0, 1]."""
        if self.function == "SIGMOID":
            exponent = np.clip(-4 * (values - self.centre) / self.width, -700, 700)
            return 1 / (1 + np.exp(exponent))
        # LINEAR is defined from a width of 1 on; below that it can only mean LINEAR_EXACT.
        exact = self.function == "LINEAR_EXACT" or self.width < 1
        centre, width = (self.centre, self.width) if exact else (self.centre - 0.5, self.width - 1)
        if width == 0:
            return (values > centre).astype(np.float64)
        return np.clip((values - centre) / width + 0.5, 0, 1)


def modality_stage(header: Header, lowest: int) -> ModalityStage:
    """Return the modality LUT, else the rescale, else the identity.

    The LUT or rescale of an angiography or fluoroscopy image in logarithmic or display values leads back to X-ray
    intensity and is not for display, so it is left out (PS3.3 C.8.7.1.1.2).

    Args:
        header: Of the frame.
        lowest: Smallest value that can be stored.

    Raises:
        UnreadableRadiograph: "invalid-header": numbers that are none, slope 0, a LUT shorter than it says.
    """
    log_or_display = header.text("PixelIntensityRelationship") in ("LOG", "DISP")
    if log_or_display and header.text("Modality") in ("XA", "RF"):
        return Rescale()
    table = next(_tables(header, "ModalityLUTSequence", lowest), None)
    if table is not None:
        return table
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    if slope == 0:
        header.refuse("RescaleSlope is 0")
    return Rescale(1.0 if slope is None else slope, intercept or 0.0)


def voi_stage(header: Header, lowest: float, choice: int = 0) -> VoiStage | None:
    """Return one of the alternatives that the header offers: its VOI LUTs, then its windows; None if it has none.

    A LUT without descriptor or data, a window without its partner, and a width of 0 or less count as absent. An
    unknown VOI LUT Function counts as LINEAR.

    Args:
        header: Of the frame.
        lowest: Smallest output of the modality stage.
        choice: Which alternative, from 0. A header with fewer has its first taken.

    Raises:
        UnreadableRadiograph: "invalid-header": numbers that are none, a LUT shorter than it says.
    """
    stages = list(islice(_voi_alternatives(header, lowest), choice + 1))
    if not stages:
        return None
    return stages[choice] if choice < len(stages) else stages[0]


def _voi_alternatives(header: Header, lowest: float) -> Iterator[VoiStage]:
    for table in _tables(header, "VOILUTSequence", lowest):
        yield TableOfInterest(table)
    function = (header.text("VOILUTFunction") or "LINEAR").upper()
    function = function if function in ("SIGMOID", "LINEAR_EXACT") else "LINEAR"
    for centre, width in zip(header.numbers("WindowCenter"), header.numbers("WindowWidth"), strict=False):
        if width > 0:
            yield Window(centre, width, function)


def _tables(header: Header, sequence: str, lowest: float) -> Iterator[LookupTable]:
    for item in header.items(sequence):
        table = lookup_table(item, "LUTDescriptor", "LUTData", lowest)
        if table is not None:
            yield table


def lookup_table(header: Header, descriptor_keyword: str, data_keyword: str, lowest: float) -> LookupTable | None:
    """Return a LUT of 8- or 16-bit entries, or None where descriptor or data are absent.

    Args:
        header: The data set or sequence item that holds it.
        descriptor_keyword: Of the number of entries (0 for 65536), the first input, and the bits of an entry.
        data_keyword: Of the entries.
        lowest: Smallest input that can occur.

    Raises:
        UnreadableRadiograph: "invalid-header": fewer entries than the descriptor says.
    """
    descriptor, words = header.words(descriptor_keyword), header.words(data_keyword)
    if len(descriptor) == 0 or len(words) == 0:
        return None
    if len(descriptor) != 3:
        header.refuse(f"{descriptor_keyword} has {len(descriptor)} values instead of 3")
    count = int(descriptor[0]) or 1 << 16
    bits = int(descriptor[2])
    # The descriptor's sign is that of the LUT's input, whatever value representation it is written in.
    first = int(descriptor[1].astype(np.int16)) if lowest < 0 else int(descriptor[1])
    if len(words) < count and bits <= 8 and 2 * len(words) >= count:
        words = words.astype("<u2").view(np.uint8).astype(np.uint16)  # two 8-bit entries to a word
    if len(words) < count:
        header.refuse(f"{data_keyword} has {len(words)} of its {count} entries")
    entries = words[:count].astype(np.float64)
    return LookupTable(first, entries, _top(int(entries.max()), bits))


def _top(largest: int, bits: int) -> int:
    """Return the top of a LUT's output range: that of the bits its descriptor declares, unless they are plainly wrong.

    Wrong means that an entry exceeds them, or that they are the 16 of the container and the highest is never used,
    as in 10-bit LUTs declared as 16 bits. Then the top is the smallest power of two minus one that covers the entries.
    """
    needed = max(1, largest.bit_length())
    return (1 << (bits if needed <= bits < 16 else needed)) - 1
