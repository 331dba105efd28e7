import csv
import os
import signal
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from mim.data.build import build
from mim.data.decode import DecodedFile, DecodeOptions, decode_file, unreadable
from mim.data.scan import scan
from mim.data.store import PreparedDataset

SALT = bytes(range(32))
DX_IMAGE = "1.2.840.10008.5.1.4.1.1.1.1.1"  # Digital X-Ray Image Storage - For Presentation


def pattern(seed: int, height: int = 40, width: int = 60) -> np.ndarray:
    """A film of 8 bits that no other seed gives."""
    ramp = np.add.outer(np.arange(height), np.arange(width)) * 255 // (height + width)
    noise = np.random.default_rng(seed).integers(0, 60, (height, width))
    return np.clip(ramp + noise, 0, 255).astype(np.uint8)


def write_png(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_dicom(path: Path, pixels: np.ndarray, *, patient: str = "", bits: int = 12, study: str = "1.2.3") -> Path:
    """Write (H, W) or (frames, H, W) whole numbers of `bits` bits as a digital X-ray."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DX_IMAGE
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = DX_IMAGE, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PatientID, dataset.PatientName = "DX", patient, "Doe^Jane"
    dataset.StudyInstanceUID, dataset.InstanceNumber = study, 7
    dataset.ImagerPixelSpacing = [0.1, 0.1]
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "MONOCHROME2", 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, bits, bits - 1, 0
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_csv(path: Path, *rows: tuple[object, ...]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def store_films(source: Path, output: Path, *, bits: int = 8, long_side: int = 512) -> PreparedDataset:
    """Prepare a folder quickly, with one worker."""
    build(scan(source, leave_out=(output,)), output, DecodeOptions(source.resolve(), long_side, bits, SALT), 1)
    return PreparedDataset.open(output)


def decode_or_die(image: str, options: DecodeOptions) -> DecodedFile:
    """Stand in for a decoder of a native library that crashes on some file."""
    if "deadly" in image:
        os.kill(os.getpid(), signal.SIGSEGV)
    return decode_file(image, options)


def double_or_die(number: int) -> int:
    if number % 7 == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    return 2 * number


def refuse(number: object, **named: object) -> int:
    raise ValueError(f"no {number}")


def decode_and_tell(image: str, options: DecodeOptions) -> DecodedFile:
    """Decode, and note beside the folder of films what was decoded."""
    with (options.root.parent / "decoded").open("a") as file:
        file.write(f"{image}\n")
    return decode_file(image, options)


def decode_without_rights(image: str, options: DecodeOptions) -> DecodedFile:
    """Stand in for a disk on which one file cannot be opened."""
    return unreadable(image, "unreadable-file", "denied") if image == "3.png" else decode_file(image, options)
