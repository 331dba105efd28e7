"""Films for each rule of rendering: grayscale stages x photometric interpretation x sign x bits, in any syntax."""

import warnings
from copy import deepcopy

import gdcm
import numpy as np
from dicom_factory import make_dataset, make_lut, save
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

BITS = (8, 10, 12, 16)
ROWS, COLUMNS = 16, 24

NATIVE = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
LOSSLESS = {
    "rle": "RLELossless",
    "jpeg-lossless": "JPEGLosslessProcess14",
    "jpeg-lossless-sv1": "JPEGLosslessProcess14_1",
    "jpeg-ls": "JPEGLSLossless",
    "jpeg-2000": "JPEG2000Lossless",
}
LOSSY = {
    "jpeg-baseline": "JPEGBaselineProcess1",
    "jpeg-extended": "JPEGExtendedProcess2_4",
    "jpeg-ls-near": "JPEGLSNearLossless",
    "jpeg-2000-lossy": "JPEG2000",
}


def film_of(bits, signed):
    """Values over the whole range that `bits` can hold, both ends included."""
    lowest = -(1 << bits - 1) if signed else 0
    values = np.linspace(lowest, lowest + (1 << bits) - 1, ROWS * COLUMNS).round().astype(np.int64)
    dtype = np.dtype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
    return values.reshape(ROWS, COLUMNS).astype(dtype)


def stages_of(bits, signed, fractions=True):
    """Grayscale stages, by name: the header fields that ask for them; without `fractions` the slopes are integers."""
    lowest, count = (-(1 << bits - 1) if signed else 0), 1 << bits
    middle = lowest + count // 2
    window = {"WindowCenter": middle + 0.25 * count, "WindowWidth": 0.4 * count}
    entries = min(count // 2, 1000)  # which end short of both ends of the input
    rising = (np.arange(entries) * 65535 // (entries - 1)) ** 2 // 65535
    modality_lut = {"ModalityLUTSequence": make_lut(lowest + count // 4, rising, 16)}
    voi_lut = {"VOILUTSequence": make_lut(middle - entries // 3, np.linspace(4095, 0, entries).astype(int), 12)}
    steep_lut = {"VOILUTSequence": make_lut(20000, np.linspace(0, 1023, 999).astype(int), 10)}
    slope, intercept = (1.5, -200.25) if fractions else (2, -200)
    rescale = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    rescaled_window = {**rescale, "WindowCenter": slope * middle, "WindowWidth": 0.7 * count}
    return {
        "none": {},
        "rescale": rescale,
        "rescale-down": {"RescaleSlope": -0.5 if fractions else -2, "RescaleIntercept": 3},
        "for-processing": {**rescale, "PresentationIntentType": "FOR PROCESSING"},
        "modality-lut": modality_lut,
        "linear": window,
        "linear-of-width-1": {"WindowCenter": middle, "WindowWidth": 1},
        "exact": {**window, "VOILUTFunction": "LINEAR_EXACT"},
        "sigmoid": {**window, "VOILUTFunction": "SIGMOID"},
        "rescale-linear": rescaled_window,
        "rescale-exact": {**rescaled_window, "VOILUTFunction": "LINEAR_EXACT"},
        "rescale-sigmoid": {**rescaled_window, "VOILUTFunction": "SIGMOID"},
        "voi-lut": voi_lut,
        "rescale-voi-lut": {"RescaleSlope": 1, "RescaleIntercept": 7, **voi_lut},
        "modality-lut-linear": {**modality_lut, "WindowCenter": 20000, "WindowWidth": 30001},
        "modality-lut-voi-lut": {**modality_lut, **steep_lut},
        "padding": {**window, "PixelPaddingValue": lowest, "PixelPaddingRangeLimit": lowest + count // 16},
    }


def matrix(bits, signed, only=None, fractions=True):
    """Yield (name of the stages, photometric interpretation, fields) for every cell, or those of the stages named."""
    for name, fields in stages_of(bits, signed, fractions).items():
        if only is not None and name not in only:
            continue
        for photometric in ("MONOCHROME1", "MONOCHROME2"):
            yield name, photometric, {**fields, "PhotometricInterpretation": photometric}


def dataset_in(syntax, film, bits, folder):
    """Return a data set whose pixels are encoded in a syntax named above, or None where its encoder cannot."""
    if syntax in NATIVE:
        dataset = make_dataset(film, bits, syntax=NATIVE[syntax])
        dataset["PixelData"].VR = "OB" if bits == 8 else "OW"  # bytes in OW would be swapped (PS3.5 section 8.1.1)
        return dataset
    source, target = folder / "native.dcm", folder / "encoded.dcm"
    save(make_dataset(film, bits), source)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, {**LOSSLESS, **LOSSY}[syntax])))
    change.SetInput(reader.GetImage())
    if not change.Change():
        return None
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(target)


def with_fields(dataset, fields):
    """Return a copy with these header fields."""
    changed = deepcopy(dataset)
    for keyword, value in fields.items():
        if keyword.startswith("PixelPadding"):
            changed.add_new(keyword, "SS" if dataset.PixelRepresentation else "US", value)
        else:
            setattr(changed, keyword, value)
    return changed
