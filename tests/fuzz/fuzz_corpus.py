"""Whole films to mutate: drawn here and stored in every way that can be written here, and real ones where there are."""

import io
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import gdcm
import numpy as np
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

HEIGHT, WIDTH = 48, 64
_LARGEST_REAL = 200_000


@cache
def drawn() -> dict[str, bytes]:
    """Films by name, the same on every machine that has the same encoders."""
    return dict([*_dicoms(), *_pngs(), *_jpegs(), *_tiffs()])


def real(folder: Path) -> dict[str, bytes]:
    """Small real files by name: all that may lie in a folder, and a few JPEG films."""
    found = sorted((folder / "dicom").glob("*.dcm")) + sorted((folder / "chest" / "images").glob("*.jpg"))[:3]
    return {path.name: path.read_bytes() for path in found if path.stat().st_size <= _LARGEST_REAL}


def film(bits: int, frames: int = 1) -> np.ndarray:
    """(frames, HEIGHT, WIDTH): a ramp with noise, as a film has it."""
    random = np.random.default_rng(bits + frames)
    ramp = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) / (HEIGHT + WIDTH)
    noisy = np.clip(ramp + random.normal(0, 0.02, (frames, HEIGHT, WIDTH)), 0, 1)
    return np.rint(noisy * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def _dataset(bits: int = 12, frames: int = 1, syntax: UID = ExplicitVRLittleEndian) -> Dataset:
    pixels = film(bits, frames)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.3"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.Modality, dataset.PatientID, dataset.StudyInstanceUID = "IO", "P-17", "1.2.3"
    dataset.InstanceNumber, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 5, 1, "MONOCHROME2"
    dataset.NumberOfFrames = frames
    dataset.Rows, dataset.Columns = HEIGHT, WIDTH
    dataset.PixelSpacing = [0.1, 0.12]
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = 0, 3
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = [2000, 1000], [4000, 300], "SIGMOID"
    dataset.RescaleSlope, dataset.RescaleIntercept = "1.5", "-100"
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OB" if bits <= 8 and syntax != ImplicitVRLittleEndian else "OW"
    return dataset


def _bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _lut(entries: int, bits: int) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [entries, 0, bits])
    item.add_new("LUTData", "US", np.linspace(0, 2**bits - 1, entries).astype(int).tolist())
    return [item]


def _dicoms() -> Iterator[tuple[str, bytes]]:
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        yield f"dicom {syntax.name}", _bytes(_dataset(syntax=syntax))
    for bits in (1, 8, 16):
        dataset = _dataset(bits)
        if bits == 1:
            dataset.BitsAllocated, dataset.PixelData = 1, np.packbits(film(1), bitorder="little").tobytes()
        yield f"dicom {bits} bits", _bytes(dataset)
    frames = _dataset(frames=3)
    yield "dicom frames", _bytes(frames)
    luts = _dataset()
    luts.ModalityLUTSequence, luts.VOILUTSequence = _lut(4096, 14), _lut(256, 10)
    del luts.RescaleSlope, luts.RescaleIntercept
    yield "dicom luts", _bytes(luts)
    groups = _dataset(frames=3)
    shared, voi, item = Dataset(), Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth = 2048, 4096
    item.PixelMeasuresSequence, shared.FrameVOILUTSequence = [Dataset()], [voi]
    groups.SharedFunctionalGroupsSequence, groups.PerFrameFunctionalGroupsSequence = [shared], [item] * 3
    yield "dicom functional groups", _bytes(groups)
    processing = _dataset()
    processing.PresentationIntentType, processing.PhotometricInterpretation = "FOR PROCESSING", "MONOCHROME1"
    del processing.WindowCenter, processing.WindowWidth
    yield "dicom for processing", _bytes(processing)
    yield "dicom without meta", _bytes(_dataset())[132:]
    yield from _compressed()


def _compressed() -> Iterator[tuple[str, bytes]]:
    for syntax in (RLELossless, JPEG2000Lossless):
        for frames in (1, 3):
            dataset = _dataset(frames=frames)
            dataset.compress(syntax, generate_instance_uid=False)
            yield f"dicom {syntax.name} {frames}", _bytes(dataset)
    parts = [_jpeg(frame, quality=80) for frame in film(8, 3)]
    baseline = _dataset(8, frames=3, syntax=JPEGBaseline8Bit)
    baseline.PixelData = encapsulate(parts)
    yield "dicom JPEG baseline", _bytes(baseline)
    values, offsets, lengths = encapsulate_extended(parts)
    baseline.PixelData, baseline.ExtendedOffsetTable, baseline.ExtendedOffsetTableLengths = values, offsets, lengths
    yield "dicom JPEG baseline, extended offsets", _bytes(baseline)
    for name in ("JPEGLosslessProcess14_1", "JPEGLosslessProcess14", "JPEGLSLossless", "JPEGExtendedProcess2_4"):
        yield f"dicom {name}", _gdcm_encoded(_bytes(_dataset()), getattr(gdcm.TransferSyntax, name))


def _gdcm_encoded(plain: bytes, syntax: int) -> bytes:
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "plain.dcm", Path(folder) / "encoded.dcm"
        source.write_bytes(plain)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(source))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetInput(reader.GetImage())
        assert change.Change(), f"gdcm does not encode {syntax}"
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(target))
        assert writer.Write()
        return target.read_bytes()


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _jpeg(pixels: np.ndarray, **options: object) -> bytes:
    return _saved(Image.fromarray(pixels), "JPEG", **options)


def _pngs() -> Iterator[tuple[str, bytes]]:
    gray = Image.fromarray(film(8)[0])
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "drawn " * 50, zip=True)
    text.add(b"sBIT", b"\x08")
    yield "png gray", _saved(gray, "PNG", pnginfo=text, icc_profile=b"profile" * 20)
    yield "png 16", _saved(Image.fromarray(film(16)[0]), "PNG")
    for mode in ("1", "LA", "RGB", "RGBA", "P"):
        yield f"png {mode}", _saved(gray.convert(mode), "PNG")
    yield "png animated", _saved(gray, "PNG", save_all=True, append_images=[Image.fromarray(film(8, 2)[1])] * 2)
    yield "png interlaced", _interlaced(film(8)[0])


def _interlaced(pixels: np.ndarray) -> bytes:
    """A gray PNG in the seven passes of Adam7, which Pillow reads but does not write."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [b"\0" + row.tobytes() for y, x, down, across in passes for row in pixels[y::down, x::across]]
    head = np.array([WIDTH, HEIGHT], ">u4").tobytes() + bytes([8, 0, 0, 0, 1])
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def _jpegs() -> Iterator[tuple[str, bytes]]:
    pixels = film(8)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "jpeg", _jpeg(pixels, exif=exif)
    yield "jpeg progressive", _jpeg(pixels, progressive=True)
    yield "jpeg colour", _saved(Image.fromarray(pixels).convert("RGB"), "JPEG", subsampling=2)
    yield "jpeg cmyk", _saved(Image.fromarray(pixels).convert("CMYK"), "JPEG")


def _tiffs() -> Iterator[tuple[str, bytes]]:
    gray, deep = Image.fromarray(film(8)[0]), Image.fromarray(film(12)[0])
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"tiff {compression}", _saved(gray, "TIFF", compression=compression)
    yield "tiff 16", _saved(deep, "TIFF", compression="tiff_adobe_deflate")
    yield "tiff 16 raw", _saved(deep, "TIFF")
    yield "tiff float", _saved(Image.fromarray(film(8)[0].astype(np.float32)), "TIFF")
    yield "tiff fax", _saved(gray.convert("1"), "TIFF", compression="group4")
    yield "tiff pages", _saved(gray, "TIFF", save_all=True, append_images=[gray, gray], compression="tiff_lzw")
    yield "tiff big", _saved(gray, "TIFF", big_tiff=True)
