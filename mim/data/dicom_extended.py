"""JPEG Extended of 12 bits, which GDCM decodes but pydicom does not ask it to."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import JPEGExtended12Bit


def decode_extended_jpeg(encoded: bytes, rows: int, columns: int, bits_stored: int, *, signed: bool) -> NDArray[Any]:
    """Decode a codestream of JPEG process 4 (ISO/IEC 10918-1) with one component of 9 to 12 bits.

    Returns:
        (rows, columns).

    Raises:
        RuntimeError: GDCM cannot decode it, or the size is another one.
    """
    import gdcm  # slow to import, and needed for few files

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(encoded)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())

    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    monochrome = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(monochrome))
    syntax = gdcm.TransferSyntax.GetTSType(str.__str__(JPEGExtended12Bit))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, bits_stored, bits_stored - 1, 0))
    text: Any = image.GetBuffer()
    if text is None:
        raise RuntimeError("GDCM cannot decode it")
    pixels = np.frombuffer(
        text.encode("utf-8", "surrogateescape"), dtype="<i2" if signed else "<u2"
    )  # GDCM hands bytes over as text
    if pixels.size != rows * columns:
        raise RuntimeError(f"GDCM decodes {pixels.size} of {rows * columns} pixels")
    return pixels.reshape(rows, columns)
